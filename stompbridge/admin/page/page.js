// The status page: what the bridge says about itself, every two seconds.

import { ask, every, hasToken, Refusal, Silence, useToken } from './bridge.js';
import * as lists from './lists.js';
import {
  $, announce, badge, brief, bytes, clock, count, el, facts, fill, plain, rate, say, span, words,
} from './parts.js';
import { Plots } from './plots.js';

const STATUS_PERIOD = 2000;
const LISTS_PERIOD = 5000;
/** Answers over which latencies are taken: ten seconds. */
const WINDOW = 5;
/** Seconds between two answers beyond which nothing is said about the time between them. */
const GAP = 9;

const plots = new Plots([
  {
    title: 'Connections',
    series: [['sessions', 'sessions'], ['sockets', 'sockets']],
    write: count,
    floor: 5,
    note: (now) => `${count(now.sessionsTotal)} since the start${now.limit ? `, at most ${count(now.limit)}` : ''}`,
  },
  {
    title: 'Messages per second',
    series: [['messagesIn', 'in'], ['messagesOut', 'out']],
    write: rate,
    floor: 5,
    note: (now) => `${count(now.totalIn)} in, ${count(now.totalOut)} out since the start`,
  },
  {
    title: 'Delivery latency',
    series: [['delivery50', 'p50'], ['delivery99', 'p99']],
    write: brief,
    floor: 0.001,
    note: () => 'broker to sockets, over 10 s',
  },
  {
    title: 'Publish latency',
    series: [['publish50', 'p50'], ['publish99', 'p99']],
    write: brief,
    floor: 0.001,
    note: () => 'publish to confirm, over 10 s',
  },
  {
    title: 'Suppressed duplicates per second',
    series: [['suppressed', '']],
    write: rate,
    floor: 5,
    note: (now) => `${count(now.suppressedTotal)} since the start, ${count(now.inDoubt)} in doubt`,
  },
  {
    title: 'Event-loop lag',
    series: [['lag', 'now'], ['lagWorst', 'worst']],
    write: brief,
    floor: 0.005,
    note: () => 'how late timers come, and the worst of 10 s',
  },
  {
    title: 'Bytes per second',
    series: [['bytesIn', 'in'], ['bytesOut', 'out']],
    write: bytes,
    floor: 1024,
    binary: true,
    note: (now) => `${bytes(now.bytesInTotal)} in, ${bytes(now.bytesOutTotal)} out since the start`,
  },
  {
    title: 'Memory',
    series: [['memory', '']],
    write: bytes,
    floor: 64 * 1024 * 1024,
    binary: true,
    note: () => 'resident in RAM',
  },
]);

/** The last answers, the newest first, as far as they are of one process and without a gap. */
let answers = [];
let answeredAt = 0;
let control = false;

/** What the part `q` of the durations observed between two histograms does not exceed, in seconds; buckets are pairs
 * of an upper end (null: infinite) and the number of observations up to it. Undefined without observations. */
function quantile(q, now, before) {
  const upTo = now.buckets.map(([, times], index) => times - before.buckets[index][1]);
  const rank = q * upTo.at(-1);
  if (!rank) return undefined;
  const index = upTo.findIndex((times) => times >= rank);
  const [lower, below] = index ? [now.buckets[index - 1][0], upTo[index - 1]] : [0, 0];
  const upper = now.buckets[index][0] ?? lower;
  return lower + ((upper - lower) * (rank - below)) / (upTo[index] - below);
}

/** A sample for the plots. Rates are over the time between two answers, by the bridge's own clock. */
function sample(status, at) {
  const { sessions, messages, bytes: sum, loop } = status;
  const [before] = answers;
  const per = (read) => before && (read(status) - read(before)) / (status.now - before.now);
  const oldest = answers.at(-1);
  const latency = (way, q) => oldest && quantile(q, status.latency[way], oldest.latency[way]);
  return {
    at,
    first: !before,
    sessions: sessions.open,
    sockets: sessions.sockets,
    sessionsTotal: sessions.total,
    limit: status.limits.connections,
    messagesIn: per((one) => one.messages.in),
    messagesOut: per((one) => one.messages.out),
    totalIn: messages.in,
    totalOut: messages.out,
    delivery50: latency('delivery', 0.5),
    delivery99: latency('delivery', 0.99),
    publish50: latency('publish', 0.5),
    publish99: latency('publish', 0.99),
    suppressed: per((one) => one.messages.suppressed),
    suppressedTotal: messages.suppressed,
    inDoubt: messages.in_doubt,
    lag: loop.lag,
    lagWorst: loop.lag_max_10s,
    bytesIn: per((one) => one.bytes.in),
    bytesOut: per((one) => one.bytes.out),
    bytesInTotal: sum.in,
    bytesOutTotal: sum.out,
    memory: status.memory.rss,
  };
}

/** Name, tone and colour of the whole: in the header, the title and the icon. */
function state(text, tone) {
  badge($('state'), text, tone);
  const colour = { good: '#2f9e63', warn: '#d08700', bad: '#d64545' }[tone] ?? '#8a94a3';
  const circle = `<circle cx="8" cy="8" r="7" fill="${colour}"/>`;
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">${circle}</svg>`;
  const link = `data:image/svg+xml,${encodeURIComponent(icon)}`;
  if ($('icon').href !== link) $('icon').href = link;
  const who = $('node').textContent;
  document.title = who ? `${who}: ${text} – stompbridge` : `${text} – stompbridge`;
}

const number = (value) => (value ? count(value) : '0');

function showState(status) {
  say($('node'), plain(status.node));
  const { broker, store, checks } = status;
  state(...(status.draining ? ['draining', 'warn'] : status.ready ? ['ready', 'good'] : ['not ready', 'bad']));
  facts($('facts'), [
    ['Version', plain(status.version)],
    ['Up', span(status.uptime)],
    ['Pid', String(status.pid)],
  ]);
  badge($('broker-badge'), broker.up ? 'up' : 'down', broker.up ? 'good' : 'bad');
  say($('broker-detail'), `${words(broker.kind)}: ${plain(broker.detail)}`);
  facts($('broker-facts'), [
    ['Reconnects', number(broker.reconnects)],
    ['Outbox', number(broker.outbox)],
    ['Unconfirmed', number(broker.unconfirmed)],
  ]);
  badge($('store-badge'), store.available ? 'available' : 'out of reach', store.available ? 'good' : 'bad');
  const check = checks.find((one) => one.name === 'store');
  const more = check && check.detail !== store.kind ? `: ${plain(check.detail)}` : '';
  say($('store-detail'), words(store.kind) + more);
  facts($('store-facts'), [
    ['Bypassed', number(store.bypassed)],
    ['In doubt', number(store.in_doubt)],
  ]);
  const failed = checks.filter((one) => !one.ok).length;
  badge($('checks-badge'), failed ? `${failed} failed` : 'all pass', failed ? 'bad' : 'good');
  fill($('checks'), checks.map((one) => el('li', { className: one.ok ? 'good' : 'bad' },
    el('span', { className: 'for-readers' }, one.ok ? 'passed: ' : 'failed: '), el('b', {}, plain(one.name)), ' ',
    el('span', { className: 'detail' }, plain(one.detail)))));
}

function showCounts({ sessions, frames }) {
  const reasons = Object.entries(sessions.closed).filter(([, times]) => times).sort(([, one], [, two]) => two - one);
  fill($('reasons'), reasons.map(([reason, times]) =>
    el('li', { className: `badge ${lists.tone(reason)}` }, `${words(reason)} ${count(times)}`)));
  for (const way of ['in', 'out']) {
    const used = Object.entries(frames[way]).filter(([, times]) => times).sort(([, one], [, two]) => two - one);
    facts($(`frames-${way}`), used.map(([command, times]) => [plain(command), count(times)]));
  }
}

function lost(error) {
  const since = answeredAt ? `The numbers below are those of ${clock(answeredAt)}. ` : '';
  let why = 'The bridge does not answer.';
  if (error instanceof Refusal) {
    why = `The bridge does not tell its status: ${error.message}.`;
  } else if (!(error instanceof Silence)) {
    why = 'The bridge answers what this page does not understand; load it again.';
    console.error(error);
  }
  say($('trouble'), `${why} ${since}Trying again every ${STATUS_PERIOD / 1000} seconds.`);
  $('trouble').hidden = false;
  document.body.dataset.reach = 'lost';
  state('unreachable', 'bad');
}

async function poll() {
  try {
    show(await ask('status'));
  } catch (error) {
    lost(error);
  }
}

function show(status) {
  const back = document.body.dataset.reach === 'lost';
  const [before] = answers;
  const other = before && before.started_at !== status.started_at;
  if (other || status.now - before?.now > GAP) answers = [];
  answeredAt = Date.now();
  $('trouble').hidden = true;
  document.body.dataset.reach = 'found';
  showState(status);
  showCounts(status);
  if (document.activeElement !== $('level')) $('level').value = status.log_level;
  plots.add(sample(status, answeredAt));
  answers = [status, ...answers.slice(0, WINDOW - 1)];
  lists.setClock(status.now);
  if (other) lists.askAgain();
  if (back) refreshLists();
}

function setControl(allowed) {
  control = allowed;
  for (const node of document.querySelectorAll('.control')) node.hidden = !allowed;
  say($('mode'), allowed ? 'Unlocked' : 'Read-only');
  say($('unlock'), allowed ? 'Lock' : 'Unlock');
}

function lock(text = '') {
  useToken('');
  setControl(false);
  announce(text);
  lists.askAgain();
  refreshLists();
}

function onRefused(error) {
  if (error.status === 401 && hasToken()) lock('The admin token is not accepted any more.');
}

async function unlock(event) {
  event.preventDefault();
  const field = $('token');
  useToken(field.value.trim());
  let wrong = '';
  try {
    const { control: allowed, token_configured: configured } = await ask('whoami', { secret: true });
    if (!configured) wrong = 'The bridge has no admin token: set admin.token_file in its configuration.';
    else if (!allowed) wrong = 'This is not the admin token.';
  } catch (error) {
    wrong = error.message;
  }
  say($('key-error'), wrong);
  if (wrong) {
    useToken('');
    field.select();
    return;
  }
  setControl(true);
  $('key').close();
  announce('Unlocked.');
  lists.askAgain();
  refreshLists();
}

async function setLevel() {
  try {
    const { level, was } = await ask('log-level', { method: 'POST', secret: true, body: { level: $('level').value } });
    announce(`The log level is ${plain(level)}; it was ${plain(was)}.`);
  } catch (error) {
    announce(`The log level stays: ${error.message}`);
    if (error instanceof Refusal) onRefused(error);
  }
}

$('unlock').addEventListener('click', () => {
  if (control) {
    lock('Locked.');
    return;
  }
  say($('key-error'), '');
  $('key').showModal();
  $('token').focus();
});
$('key').addEventListener('close', () => {
  $('token').value = '';
});
$('key-cancel').addEventListener('click', () => $('key').close());
$('key-form').addEventListener('submit', unlock);
$('level').addEventListener('change', setLevel);

setControl(false);
const refreshLists = every(LISTS_PERIOD, lists.refresh);
lists.start(refreshLists, onRefused);
every(STATUS_PERIOD, poll);
