// What every client's round has: steps with a time limit, an inbox, and one line of JSON at the end.
'use strict';

Object.assign(globalThis, { WebSocket: require('ws') });

const STEP = 10000;

// The promise's value, or an error that names the step, once it has taken too long.
async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${STEP} ms`)), STEP);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// What has come and was not taken yet, in order.
class Inbox {
  #items = [];
  #wake = () => {};

  constructor(what) {
    this.what = what;
  }

  get size() {
    return this.#items.length;
  }

  push = (item) => {
    this.#items.push(item);
    this.#wake();
  };

  // The next `count` of them.
  async take(count) {
    while (this.#items.length < count) {
      await within(new Promise((resolve) => { this.#wake = resolve; }), `${count} from ${this.what}`);
    }
    return this.#items.splice(0, count);
  }

  async next() {
    return (await this.take(1))[0];
  }
}

// Ids for the `receipt` header, and promises of their RECEIPTs.
class Receipts {
  #waiting = new Map();

  // `{id, done}`: `done` is a promise of the RECEIPT.
  next(what) {
    const id = `${what}-${this.#waiting.size}`;
    const done = within(new Promise((resolve) => { this.#waiting.set(id, resolve); }), `RECEIPT ${id}`);
    return { id, done };
  }

  take = (frame) => this.#waiting.get(frame.headers['receipt-id'])(frame);
}

// Runs the round and prints what it returns.
function run(round) {
  round(...process.argv.slice(2)).then(
    (report) => {
      process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
    },
    (error) => {
      process.stderr.write(`${error.stack || error}\n`, () => process.exit(1));
    },
  );
}

module.exports = { Inbox, Receipts, run, within };
