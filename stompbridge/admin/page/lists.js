// Sessions, closed sessions and destinations.

import { ask, Refusal, Silence } from './bridge.js';
import {
  $, announce, badge, brief, bytes, count, el, facts, fill, foreign, keyed, plain, rate, say, span, words,
} from './parts.js';

const FEW = 10;
const MOST = 1000;
const CLOSED = 50;
/** Ends that need nobody's attention. */
const CALM = new Set(['client_disconnect', 'client_closed', 'shutdown', 'kicked', 'taken_over']);
const BAD = new Set(['internal_error', 'protocol_error', 'stomp_error', 'bad_text', 'auth_unavailable']);

let search = '';
let sort = 'age';
let limit = FEW;
/** The bridge's clock, in Unix seconds. */
let clock = 0;
/** The session in the dialog. */
let shown = null;
/** Whether the bridge shows sessions to us; null: to be asked. */
let allowed = null;
let counted = new Map();
let countedAt = 0;

/** Called with an answer of 401, 403 or 429; the page sets it. */
let refused = () => {};

/** How much attention a reason for closing deserves. */
export const tone = (reason) => (CALM.has(reason) ? '' : BAD.has(reason) ? 'bad' : 'warn');

/** Sets text of a stranger's, with the whole of it as the tooltip. */
function put(node, text) {
  say(node, plain(text));
  if (node.title !== text) node.title = text;
}

const cell = (name = '', ...children) => el('td', { className: name }, ...children);

function sessionRow({ id }) {
  const parts = {
    user: el('button', { type: 'button', className: 'link' }),
    state: el('span', { className: 'badge' }),
    id: el('bdi', { className: 'second' }),
    address: el('bdi'),
    subscriptions: cell('number'),
    unacked: cell('number'),
    messages: cell('number wide'),
    bytes: cell('number middle'),
    age: cell('number'),
  };
  parts.user.addEventListener('click', () => open(id));
  const row = el('tr', {}, el('th', { scope: 'row' }, parts.user, ' ', parts.state, parts.id),
    cell('wide', parts.address), parts.subscriptions, parts.unacked, parts.messages, parts.bytes, parts.age);
  row.parts = parts;
  return row;
}

function fillSession({ parts }, session) {
  put(parts.user, session.user || 'no login');
  parts.user.classList.toggle('faint', !session.user);
  badge(parts.state, session.state === 'open' ? '' : session.state, 'warn');
  put(parts.id, session.client_id ? `${session.id} · ${session.client_id}` : session.id);
  put(parts.address, session.address);
  say(parts.subscriptions, count(session.subscription_count));
  say(parts.unacked, count(session.unacked));
  say(parts.messages, `${count(session.messages_in)} / ${count(session.messages_out)}`);
  say(parts.bytes, `${bytes(session.bytes_in)} / ${bytes(session.bytes_out)}`);
  say(parts.age, span(session.age));
}

async function showSessions() {
  const wanted = new URLSearchParams({ sort, limit });
  if (search) wanted.set('search', search);
  const { total, matched, sessions } = await ask(`sessions?${wanted}`, { secret: true });
  keyed($('session-rows'), sessions, (one) => one.id, sessionRow, fillSession);
  const all = search ? `${count(matched)} of ${count(total)} match` : `${count(total)} open`;
  say($('sessions-count'), sessions.length < matched ? `${count(sessions.length)} shown, ${all}` : all);
  nothing('sessions-empty', sessions, search ? 'No session matches.' : 'Nobody is connected.');
  $('more').hidden = sessions.length >= matched || limit >= MOST;
}

function nothing(id, items, text) {
  $(id).hidden = items.length > 0;
  if (text) say($(id), text);
}

function closedRow(one) {
  const reason = el('span', { className: `badge ${tone(one.reason)}` }, words(one.reason));
  const when = cell('number');
  const row = el('tr', {},
    el('th', { scope: 'row' }, foreign(one.user || 'no login', { className: one.user ? '' : 'faint' }),
      foreign(one.id, { className: 'second' })),
    cell('', reason, foreign(one.detail ?? '', { className: 'second' })), cell('number', span(one.age)), when);
  row.when = when;
  return row;
}

async function showClosed() {
  const { closed } = await ask(`closed?limit=${CLOSED}`, { secret: true });
  keyed($('closed-rows'), closed, (one) => `${one.id} ${one.closed_at}`, closedRow,
    (row, one) => say(row.when, clock ? `${span(clock - one.closed_at)} ago` : ''));
  nothing('closed-empty', closed, 'None yet.');
}

function destinationRow(one) {
  const cells = [cell('number'), cell('number'), cell('number'), cell('number')];
  const row = el('tr', {}, el('th', { scope: 'row' }, foreign(one.destination)), ...cells);
  row.numbers = cells;
  return row;
}

async function showDestinations() {
  const { destinations } = await ask('destinations?limit=20');
  const now = performance.now();
  const passed = (now - countedAt) / 1000;
  const before = counted;
  keyed($('destination-rows'), destinations, (one) => one.destination, destinationRow, ({ numbers }, one) => {
    const more = one.messages_out - before.get(one.destination);
    const pace = more >= 0 && passed < 30 ? rate(more / passed) : '–';
    [one.subscribers, one.messages_in, one.messages_out].forEach((value, index) => say(numbers[index], count(value)));
    say(numbers[3], pace);
  });
  counted = new Map(destinations.map((one) => [one.destination, one.messages_out]));
  countedAt = now;
  nothing('destinations-empty', destinations);
}

function subscriptionRow(one) {
  return el('tr', {}, el('th', { scope: 'row' }, foreign(one.destination)), cell('', foreign(one.id)),
    cell('', words(one.ack)), cell('number middle', one.prefetch === null ? 'any' : count(one.prefetch)),
    cell('number', count(one.unacked)));
}

async function showSession() {
  if (shown === null) return;
  const id = shown;
  let session;
  try {
    session = await ask(`sessions/${encodeURIComponent(id)}`, { secret: true });
  } catch (error) {
    if (!(error instanceof Refusal) || error.status !== 404 || shown !== id) throw error;
    say($('session-gone'), 'This session has ended.');
    $('session-gone').hidden = false;
    $('kick').disabled = true;
    return;
  }
  if (shown !== id) return;
  fill($('session-title'), [foreign(session.user || 'no login')]);
  facts($('session-facts'), [
    ['Session', foreign(session.id)],
    ['Client id', session.client_id && foreign(session.client_id)],
    ['Address', foreign(session.address)],
    ['Node', foreign(session.node)],
    ['State', words(session.state)],
    ['Connected', `${new Date(session.connected_at * 1000).toLocaleString('en-GB')}, ${span(session.age)} ago`],
    ['Protocol', `STOMP ${plain(session.version || '–')}, ${plain(session.protocol || 'no subprotocol')}`],
    ['Heart-beats', beats(session.heartbeat)],
    ['Messages', `${count(session.messages_in)} in, ${count(session.messages_out)} out`],
    ['Bytes', `${bytes(session.bytes_in)} in, ${bytes(session.bytes_out)} out`],
    ['Unacknowledged', count(session.unacked)],
    ['Waiting to be sent', bytes(session.unsent)],
  ]);
  fill($('session-subscriptions'), session.subscriptions.map(subscriptionRow));
  nothing('session-none', session.subscriptions);
}

/** From the milliseconds of CONNECTED's heart-beat header. */
function beats(header) {
  const [out, back] = (header ?? '0,0').split(',').map((milliseconds) => Number(milliseconds) / 1000);
  return `${out ? `every ${brief(out)}` : 'none'} out, ${back ? `every ${brief(back)}` : 'none'} in`;
}

async function open(id) {
  shown = id;
  say($('session-title'), '');
  $('session-facts').replaceChildren();
  $('session-subscriptions').replaceChildren();
  $('session-gone').hidden = true;
  $('kick').disabled = false;
  $('session').showModal();
  await guarded(showSession);
}

/** Asks before something that cannot be undone. */
function sure(text) {
  const dialog = $('confirm');
  $('confirm-text').replaceChildren(...text);
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

async function kick(again) {
  const id = shown;
  const who = $('session-title').textContent;
  const text = [el('bdi', {}, el('b', {}, who)), ', session ', foreign(id),
    '. Its WebSocket is closed with code 1008. Most clients connect again by themselves.'];
  if (!(await sure(text))) return;
  $('kick').disabled = true;
  try {
    await ask(`sessions/${encodeURIComponent(id)}/close`, { method: 'POST', secret: true });
    shown = null;
    $('session').close();
    announce(`Closed: ${who}, session ${plain(id)}`);
  } catch (error) {
    say($('session-gone'), `Not closed: ${error.message}`);
    $('session-gone').hidden = false;
    if (error instanceof Refusal) refused(error);
  }
  $('kick').disabled = false;
  again();
}

function withhold() {
  allowed = false;
  nothing('sessions-empty', [], 'Sessions are shown to holders of the admin token: unlock the page.');
  nothing('closed-empty', [], 'Shown to holders of the admin token.');
  keyed($('session-rows'), []);
  keyed($('closed-rows'), []);
  say($('sessions-count'), '');
  $('more').hidden = true;
}

async function guarded(task) {
  try {
    await task();
  } catch (error) {
    if (error instanceof Refusal && [401, 403, 429].includes(error.status)) {
      withhold();
      refused(error);
    } else if (error instanceof Refusal) {
      announce(`Not all lists are fresh: ${error.message}`);
    } else if (!(error instanceof Silence)) {
      console.error(error);
    }
  }
}

/** Another token, or another bridge: whether it shows sessions is to be asked again. */
export function askAgain() {
  allowed = null;
}

async function showProtected() {
  if (allowed === null) allowed = (await ask('whoami', { secret: true })).read;
  if (allowed) await Promise.all([showSessions, showClosed, showSession].map(guarded));
  else withhold();
}

/** The bridge's clock now, in Unix seconds. */
export function setClock(seconds) {
  clock = seconds;
}

/** Fetches all lists once. */
export async function refresh() {
  await Promise.all([showDestinations, showProtected].map(guarded));
}

/** Connects the controls; `again` is what fetches the lists at once, `onRefused` hears of tokens not accepted. */
export function start(again, onRefused) {
  refused = onRefused;
  let waiting = 0;
  const find = () => {
    clearTimeout(waiting);
    search = $('search').value.trim();
    limit = FEW;
    again();
  };
  $('search').addEventListener('input', () => {
    clearTimeout(waiting);
    waiting = setTimeout(find, 250);
  });
  $('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    find();
  });
  const heads = [...document.querySelectorAll('th[data-sort]')];
  const mark = () => {
    for (const head of heads) head.ariaSort = head.dataset.sort === sort ? 'descending' : 'none';
  };
  for (const head of heads) {
    head.firstElementChild.addEventListener('click', () => {
      sort = head.dataset.sort;
      mark();
      again();
    });
  }
  mark();
  $('more').addEventListener('click', () => {
    limit = Math.min(limit * 5, MOST);
    again();
  });
  $('session').addEventListener('close', () => {
    shown = null;
  });
  $('kick').addEventListener('click', () => kick(again));
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', (event) => {
      const { left, right, top, bottom } = dialog.getBoundingClientRect();
      const inside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
      if (event.target === dialog && !inside) dialog.close();
    });
  }
}
