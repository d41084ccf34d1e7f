// Building blocks of the page: elements, and how values are written.
//
// Names, users, addresses and destinations come from strangers. They enter the page as text only, through textContent
// or as the string child of an element, and never as markup.

/** The element of this id. */
export const $ = (id) => document.getElementById(id);

/** A new element with these properties; children are nodes or text. */
export function el(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Text of a stranger's: its direction stays its own, and characters that would hide or turn text are spelled out. */
export function foreign(text, properties = {}) {
  return el('bdi', { title: text, ...properties }, plain(text));
}

/** Control characters and those that change the direction of text, spelled out. */
export function plain(text) {
  return String(text ?? '').replace(/[\p{Cc}\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu,
    (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, '0')}`);
}

/** Sets the text of an element, if it is another one. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let saying = 0;

/** Tells what has happened, for a while. */
export function announce(text) {
  clearTimeout(saying);
  say($('said'), text);
  saying = setTimeout(() => say($('said'), ''), 10_000);
}

/** Sets a badge's text and tone: good, warn, bad or none. */
export function badge(node, text, tone = '') {
  say(node, text);
  node.className = `badge ${tone}`;
}

/** Fills a dl with pairs of a name and a value, text or node; pairs without a value are left out. */
export function facts(list, pairs) {
  const shown = pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== '');
  fill(list, shown.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
}

/** Makes `nodes` the children of `parent`. Equal ones that are there stay, with what somebody has selected in them. */
export function fill(parent, nodes) {
  nodes.forEach((node, index) => {
    const old = parent.children[index];
    if (!old) parent.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

/** Makes the children of `parent` those of `items`, in order; the elements of items that were there before are kept. */
export function keyed(parent, items, key, make, update) {
  const before = parent.keyed ?? new Map();
  const now = new Map();
  const focused = document.activeElement;
  items.forEach((item, index) => {
    const name = key(item);
    const node = before.get(name) ?? make(item);
    update(node, item);
    now.set(name, node);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  while (parent.children.length > now.size) parent.lastElementChild.remove();
  parent.keyed = now;
  // An element that is moved loses the focus.
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

const NONE = '–';
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const is = (value) => typeof value === 'number' && Number.isFinite(value);

/** A number of things: 1,234 or 56.7K. */
export const count = (value) => (!is(value) ? NONE : (Math.abs(value) < 100_000 ? whole : short).format(value));

/** Things a second: 0.4, 12, 1,234. */
export const rate = (value) => (is(value) && value > 0 && value < 9.95 ? value.toFixed(1) : count(value));

/** Bytes: 12 B, 3.4 KiB. */
export function bytes(value) {
  if (!is(value)) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 99.5 ? value.toFixed(1) : whole.format(value)} ${units[unit]}`;
}

/** A short time, from seconds: 340 µs, 1.2 ms, 3.4 s. */
export function brief(seconds) {
  if (!is(seconds)) return NONE;
  const [value, unit] = seconds < 0.001 ? [seconds * 1e6, 'µs'] : seconds < 1 ? [seconds * 1e3, 'ms'] : [seconds, 's'];
  return `${value > 0 && value < 9.95 && unit !== 'µs' ? value.toFixed(1) : whole.format(value)} ${unit}`;
}

/** An age, from seconds: 12 s, 3 m 20 s, 5 h 3 m, 2 d 4 h. */
export function span(seconds) {
  if (!is(seconds)) return NONE;
  const total = Math.max(0, Math.floor(seconds));
  const parts = [[Math.floor(total / 86400), 'd'], [Math.floor(total / 3600) % 24, 'h'],
    [Math.floor(total / 60) % 60, 'm'], [total % 60, 's']];
  const first = Math.max(0, parts.findIndex(([value]) => value > 0));
  const shown = total < 60 ? parts.slice(3) : parts.slice(first, first + 2).filter(([value]) => value > 0);
  return shown.map(([value, unit]) => `${value} ${unit}`).join(' ');
}

/** A time of day, from Unix milliseconds. */
export const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString('en-GB');

/** A label of the program's as words: client_lost becomes "client lost". */
export const words = (label) => plain(label).replaceAll('_', ' ');
