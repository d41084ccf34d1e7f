// A round through all that stompjs 2.3.3 and webstomp-client, which has the same interface, offer.
//   node callbacks.js stompjs|webstomp|webstomp-binary ADDRESS NAME
'use strict';

const { Inbox, Receipts, run, within } = require('./scenario.js');

const OPEN = {
  stompjs: (address) => require('stompjs').over(new WebSocket(address, ['v10.stomp', 'v11.stomp'])),
  webstomp: (address) => require('webstomp-client').client(address, { debug: false }),
  'webstomp-binary': (address) => require('webstomp-client').client(address, { debug: false, binary: true }),
};

// The arguments of `send`: webstomp has the body before the headers.
const ARGUMENTS = {
  stompjs: (body, headers) => [headers, body],
  webstomp: (body, headers) => [body, headers],
};

async function round(kind, address, name) {
  const client = OPEN[kind](address);
  const order = ARGUMENTS[kind.split('-')[0]];
  const receipts = new Receipts();
  const errors = new Inbox('ERROR');
  const report = {};
  client.debug = () => {};
  client.onreceipt = receipts.take;

  const connected = await within(
    new Promise((resolve) => { client.connect({}, resolve, errors.push); }), 'CONNECTED');
  report.version = connected.headers.version;

  async function confirmed(what, act) {
    const { id, done } = receipts.next(what);
    act({ receipt: id });
    await done;
  }
  const send = (to, body, headers = {}) => client.send(to, ...order(body, headers));
  const settled = (to, body) => confirmed('send', (headers) => send(to, body, headers));
  async function subscribe(to, headers = {}) {
    const inbox = new Inbox(to);
    let subscription;
    await confirmed('subscribe', (more) => {
      subscription = client.subscribe(to, inbox.push, { ...headers, ...more });
    });
    return { inbox, subscription };
  }
  const bodies = (messages) => messages.map((message) => message.body);

  // Acknowledgements: the first message is refused once and comes again.
  const queue = `/queue/${name}`;
  const work = await subscribe(queue, { ack: 'client-individual' });
  for (const body of ['one', 'two', 'three']) await settled(queue, body);
  const [one, two, three] = await work.inbox.take(3);
  report.queue = bodies([one, two, three]);
  await confirmed('nack', (headers) => one.nack(headers));
  const again = await work.inbox.next();
  report.again = [again.body, again.headers.redelivered];
  for (const message of [again, two, three]) await confirmed('ack', (headers) => message.ack(headers));

  // Transactions: what is in them comes after what is not, or never.
  const aborted = client.begin();
  send(queue, 'aborted', { transaction: aborted.id });
  aborted.abort();
  const begun = client.begin();
  send(queue, 'inside 1', { transaction: begun.id });
  send(queue, 'inside 2', { transaction: begun.id });
  await settled(queue, 'outside');
  const outside = await work.inbox.next();
  outside.ack({ transaction: begun.id });
  begun.commit();
  const inside = await work.inbox.take(2);
  report.transactions = bodies([outside, ...inside]);
  for (const message of inside) await confirmed('ack', (headers) => message.ack(headers));

  // Topics: wildcards, text beyond ASCII, large frames, the end of a subscription.
  const topic = await subscribe(`/topic/${name}.*`);
  await settled(`/topic/${name}.a`, 'Grüße 🎉');
  await settled(`/topic/${name}.b`, 'x'.repeat(100000));
  const [greeting, large] = await topic.inbox.take(2);
  report.topic = [greeting.body, greeting.headers.destination, large.body.length];
  topic.subscription.unsubscribe();
  await settled(`/topic/${name}.a`, 'nobody listens');
  report.after = topic.inbox.size;

  send('/nonsense/x', 'body');
  report.error = (await errors.next()).headers.message;
  await within(new Promise((resolve) => { client.disconnect(resolve); }), 'DISCONNECT');
  return report;
}

run(round);
