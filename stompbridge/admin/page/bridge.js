// Requests to the bridge, and when they are made.

/** Milliseconds that an answer may take. */
const PATIENCE = 5000;

let token = '';

/** The admin token for the requests that need one; '' for none. It is kept here and nowhere else. */
export const useToken = (value) => {
  token = value;
};

/** Whether there is a token. */
export const hasToken = () => token !== '';

/** No answer, or none in time. */
export class Silence extends Error {}

/** An answer other than 2xx, with its status and the bridge's own words. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Sends a request, with `body` as JSON and, if `secret`, with the token; returns the JSON of the answer. Throws a
 * Refusal or a Silence. Paths are relative: a proxy may have put the page into a folder. */
export async function ask(path, { method = 'GET', secret = false, body = null } = {}) {
  const headers = { Accept: 'application/json' };
  if (secret && token) headers.Authorization = `Bearer ${token}`;
  if (body) headers['Content-Type'] = 'application/json';
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.timeout(PATIENCE),
    });
    text = await response.text();
  } catch (error) {
    throw new Silence(`no answer: ${error.message}`);
  }
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch (error) {
    if (response.ok) throw error;
  }
  if (!response.ok) throw new Refusal(response.status, answer?.error ?? `${response.status} ${text.slice(0, 200)}`);
  return answer;
}

/** Runs `task` now and then `period` ms after it ended, but not while nobody looks. Returns what runs it at once. */
export function every(period, task) {
  let timer = 0;
  let running = false;
  let again = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      await task();
    } while (again);
    running = false;
    if (!document.hidden) timer = setTimeout(run, period);
  };
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) clearTimeout(timer);
    else run();
  });
  run();
  return run;
}
