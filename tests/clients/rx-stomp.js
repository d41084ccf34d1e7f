// A round through what rx-stomp offers.
//   node rx-stomp.js ADDRESS NAME
'use strict';

const { Inbox, Receipts, run, within } = require('./scenario.js');
const { RxStomp, RxStompRPC } = require('@stomp/rx-stomp');
const { filter, firstValueFrom } = require('rxjs');

async function round(brokerURL, name) {
  const rx = new RxStomp();
  const receipts = new Receipts();
  const errors = new Inbox('ERROR');
  const report = {};
  rx.configure({ brokerURL, reconnectDelay: 0 });
  rx.unhandledReceipts$.subscribe(receipts.take);
  rx.stompErrors$.subscribe(errors.push);
  rx.activate();
  await within(firstValueFrom(rx.connected$), 'CONNECTED');
  report.version = (await firstValueFrom(rx.serverHeaders$)).version;

  async function confirmed(what, act) {
    const { id, done } = receipts.next(what);
    act({ receipt: id });
    await done;
  }
  const send = (destination, body, headers = {}) => rx.publish({ destination, body, headers });
  const settled = (to, body) => confirmed('send', (headers) => send(to, body, headers));
  async function watch(destination, headers = {}) {
    const inbox = new Inbox(destination);
    let subscription;
    await confirmed('subscribe', (more) => {
      subscription = rx.watch({ destination, subHeaders: { ...headers, ...more } }).subscribe(inbox.push);
    });
    return { inbox, subscription };
  }
  const bodies = (messages) => messages.map((message) => message.body);

  const queue = `/queue/${name}`;
  const work = await watch(queue, { ack: 'client-individual' });
  for (const body of ['one', 'two', 'three']) await settled(queue, body);
  const [one, two, three] = await work.inbox.take(3);
  report.queue = bodies([one, two, three]);
  await confirmed('nack', (headers) => one.nack(headers));
  const again = await work.inbox.next();
  report.again = [again.body, again.headers.redelivered];
  for (const message of [again, two, three]) await confirmed('ack', (headers) => message.ack(headers));

  const aborted = rx.stompClient.begin();
  send(queue, 'aborted', { transaction: aborted.id });
  aborted.abort();
  const begun = rx.stompClient.begin();
  send(queue, 'inside 1', { transaction: begun.id });
  send(queue, 'inside 2', { transaction: begun.id });
  await settled(queue, 'outside');
  const outside = await work.inbox.next();
  outside.ack({ transaction: begun.id });
  begun.commit();
  const inside = await work.inbox.take(2);
  report.transactions = bodies([outside, ...inside]);
  for (const message of inside) await confirmed('ack', (headers) => message.ack(headers));

  const topic = await watch(`/topic/${name}.*`);
  await settled(`/topic/${name}.a`, 'Grüße 🎉');
  await settled(`/topic/${name}.b`, 'x'.repeat(100000));
  const [greeting, large] = await topic.inbox.take(2);
  report.topic = [greeting.body, greeting.headers.destination, large.body.length];
  topic.subscription.unsubscribe();
  await settled(`/topic/${name}.a`, 'nobody listens');
  report.after = topic.inbox.size;

  // A question and its answer, which comes back on a temporary queue.
  const service = await watch(`/topic/${name}-service`);
  const answered = firstValueFrom(new RxStompRPC(rx).rpc({ destination: `/topic/${name}-service`, body: 'ping' }));
  const question = await service.inbox.next();
  const correlation = question.headers['correlation-id'];
  send(question.headers['reply-to'], `${question.body} pong`, { 'correlation-id': correlation });
  report.answer = (await within(answered, 'the answer')).body;

  send('/nonsense/x', 'body');
  report.error = (await errors.next()).headers.message;
  const closed = firstValueFrom(rx.connectionState$.pipe(filter((state) => state === 3)));
  await within(rx.deactivate(), 'the RECEIPT of DISCONNECT');
  await within(closed, 'the end');
  return report;
}

run(round);
