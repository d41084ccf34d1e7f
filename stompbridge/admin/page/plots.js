// The small plots: lines over the last five minutes, drawn as SVG.

import { $, clock, el, say } from './parts.js';

/** Milliseconds that a plot shows. */
const SPAN = 300_000;
const WIDTH = 300;
const HEIGHT = 64;
const TOP = 4;

const svg = (tag, attributes = {}) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

/** The next round number, of powers of ten, or of ten times powers of 1024. */
function above(value, binary) {
  let unit = 1;
  while (binary && value / unit >= 1024) unit *= 1024;
  const scaled = value / unit;
  const power = 10 ** Math.floor(Math.log10(scaled));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((digit) => digit * power >= scaled * (1 - 1e-9)) * power * unit;
}

class Plot {
  /** `series`: pairs of a sample's key and its label. `floor`: the least that the full height stands for. */
  constructor({ title, note, series, write, floor, binary = false }) {
    this.series = series;
    this.write = write;
    this.floor = floor;
    this.binary = binary;
    this.note = note;
    this.values = series.map(() => el('b'));
    this.foot = el('p', { className: 'note' });
    this.top = el('span', { className: 'scale' });
    const box = `0 0 ${WIDTH} ${HEIGHT}`;
    this.drawing = svg('svg', { viewBox: box, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    this.area = svg('path', { class: 'area' });
    this.lines = series.map((_, index) => svg('path', { class: `line line-${index}` }));
    this.cursor = svg('path', { class: 'cursor' });
    const grid = svg('path', { class: 'grid', d: `M0 ${TOP}H${WIDTH}M0 ${(HEIGHT + TOP) / 2}H${WIDTH}` });
    const base = svg('path', { class: 'base', d: `M0 ${HEIGHT}H${WIDTH}` });
    this.drawing.append(grid, this.area, base, ...this.lines.toReversed(), this.cursor);
    const keys = series.map(([, label], index) =>
      el('span', { className: `key key-${index}` }, ...(label ? [el('i'), `${label} `] : []), this.values[index]));
    const values = el('p', { className: 'values' }, ...keys);
    const drawing = el('div', { className: 'drawing' }, this.top, this.drawing);
    this.root = el('article', { className: 'card plot' }, el('h3', {}, title), values, drawing, this.foot);
  }

  draw(samples, end) {
    const keys = this.series.map(([key]) => key);
    const most = samples.reduce((max, one) => Math.max(max, ...keys.map((key) => one[key] ?? 0)), this.floor);
    const full = above(most, this.binary);
    const x = (at) => (((at - end) / SPAN + 1) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT - (value / full) * (HEIGHT - TOP)).toFixed(1);
    keys.forEach((key, index) => {
      // Runs of samples that belong together.
      const runs = [];
      let joined = false;
      for (const one of samples) {
        const known = typeof one[key] === 'number';
        if (known && (one.first || !joined)) runs.push([]);
        if (known) runs.at(-1).push(`${x(one.at)} ${y(one[key])}`);
        joined = known;
      }
      // A point alone is a short dash.
      const line = (run) => `M${run.join('L')}${run.length === 1 ? 'h.5' : ''}`;
      this.lines[index].setAttribute('d', runs.map(line).join(''));
      if (index === 0) {
        const close = (run) => `M${run.join('L')}L${run.at(-1).split(' ')[0]} ${HEIGHT}H${run[0].split(' ')[0]}Z`;
        this.area.setAttribute('d', runs.map(close).join(''));
      }
    });
    say(this.top, this.write(full).replace('.0', ''));
  }

  show(sample, at, end) {
    this.series.forEach(([key], index) => say(this.values[index], this.write(sample?.[key])));
    say(this.foot, (sample && this.note?.(sample)) ?? '');
    this.cursor.setAttribute('d', at === null ? '' : `M${(((at - end) / SPAN + 1) * WIDTH).toFixed(1)} 0V${HEIGHT}`);
  }
}

/** All plots, over the same samples; the pointer or the arrow keys read the values of one moment in all of them. */
export class Plots {
  constructor(specifications) {
    this.samples = [];
    this.picked = null;
    this.plots = specifications.map((one) => new Plot(one));
    const root = $('plots');
    root.append(...this.plots.map((plot) => plot.root));
    root.addEventListener('pointermove', (event) => this.#point(event));
    root.addEventListener('pointerleave', () => this.#pick(null));
    root.addEventListener('blur', () => this.#pick(null));
    root.addEventListener('keydown', (event) => this.#key(event));
  }

  /** Takes a sample: `at` in Unix milliseconds, and the values by key. `first`: not to be joined to the one before. */
  add(sample) {
    this.samples.push(sample);
    while (this.samples[0].at < sample.at - SPAN) this.samples.shift();
    if (!this.samples.includes(this.picked)) this.picked = null;
    for (const plot of this.plots) plot.draw(this.samples, sample.at);
    this.#pick(this.picked);
  }

  #pick(sample) {
    const last = this.samples.at(-1);
    this.picked = sample;
    say($('moment'), sample ? `at ${clock(sample.at)}` : '');
    for (const plot of this.plots) plot.show(sample ?? last, sample && sample.at, last?.at);
  }

  #point(event) {
    const drawing = event.target.closest?.('.drawing');
    if (!drawing || !this.samples.length) return this.#pick(null);
    const box = drawing.getBoundingClientRect();
    const at = this.samples.at(-1).at - SPAN * (1 - (event.clientX - box.left) / box.width);
    const near = this.samples.reduce((best, one) => (Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best));
    return this.#pick(near);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') this.#pick(null);
    if (!step || !this.samples.length) return;
    event.preventDefault();
    const index = this.picked ? this.samples.indexOf(this.picked) : this.samples.length - 1;
    this.#pick(this.samples[Math.min(Math.max(index + step, 0), this.samples.length - 1)]);
  }
}
