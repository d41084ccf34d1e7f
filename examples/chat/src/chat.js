// The page's connection: what is sent until it is confirmed, and what is acknowledged once it is kept.

import { Client, TickerStrategy } from '@stomp/stompjs';

// ERRORs that answer a SEND which may be tried again as it is.
const PASSING = new Set(['Broker unavailable', 'Store unavailable', 'Idempotency key in flight']);
const QUEUE_EXPIRES = 600_000;

export class Chat {
  // "connecting", "connected" or "reconnecting".
  connection = 'connecting';
  // Whether the bridge reaches its broker, from /internal/healthcheck.
  brokerUp = true;
  // The rooms whose messages come: their SUBSCRIBE has a RECEIPT.
  joined = new Set();
  // The text of an ERROR that no message caused.
  problem = '';

  #tab;
  #settings;
  #changed;
  #client;
  #bridge = 0;
  #subscriptions = new Map();

  // `changed(room, message)` is called when a message is new or changed, `changed()` when anything else is.
  constructor(tab, settings, changed) {
    this.#tab = tab;
    this.#settings = settings;
    this.#changed = changed;
    this.#client = new Client({
      // One name per tab: what this tab has acknowledged never comes again, on whatever bridge it connects.
      connectHeaders: { 'client-id': tab.id },
      heartbeatIncoming: settings.heartbeat,
      heartbeatOutgoing: settings.heartbeat,
      // Browsers slow down the timers of tabs in the background, but not those of workers.
      heartbeatStrategy: TickerStrategy.Worker,
      discardWebsocketOnCommFailure: true,
      connectionTimeout: 10_000,
      reconnectDelay: settings.reconnect * 0.75,
      beforeConnect: () => this.#prepare(),
      onConnect: () => this.#connected(),
      onStompError: (frame) => this.#refused(frame),
      onWebSocketClose: () => this.#closed(),
    });
  }

  start() {
    this.#client.activate();
  }

  join(room) {
    this.#tab.join(room);
    if (this.#client.connected && !this.#subscriptions.has(room)) this.#subscribe(room);
    this.#changed();
  }

  leave(room) {
    this.#subscriptions.get(room)?.unsubscribe();
    this.#subscriptions.delete(room);
    this.joined.delete(room);
    this.#tab.leave(room);
    this.#changed();
  }

  // Shows a message at once, and sends it now or when there is a connection.
  say(room, text) {
    const message = this.#tab.write(room, text);
    this.#changed(room, message);
    this.#send(room, message);
  }

  // Tries once more to send a message that was refused.
  again(room, message) {
    delete message.problem;
    this.#changed(room, message);
    this.#send(room, message);
  }

  // Before each attempt. All pages lose a bridge at the same moment; they do not come back at the same moment.
  async #prepare() {
    if (this.connection === 'reconnecting') {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * this.#settings.reconnect * 0.5));
    }
    const address = this.#settings.bridges[this.#bridge];
    this.#client.brokerURL = new URL(address, location.href).href.replace(/^http/, 'ws');
  }

  #connected() {
    this.connection = 'connected';
    this.problem = '';
    this.#subscriptions.clear();
    this.#client.subscribe('/internal/healthcheck', (message) => {
      this.brokerUp = JSON.parse(message.body).status === 'SUCCESS';
      this.#changed();
    });
    for (const room of this.#tab.rooms) this.#subscribe(room);
    // What has no RECEIPT yet goes out again, in its order and with its key: published once, however often it is sent.
    for (const room of this.#tab.rooms) {
      for (const message of this.#tab.waiting(room)) {
        if (!message.problem) this.#send(room, message);
      }
    }
    this.#changed();
  }

  // A queue of this tab's own keeps the room's messages while the tab is away; ten minutes later it is gone.
  #subscribe(room) {
    const id = `${this.#tab.id}-${room}`;
    this.#client.watchForReceipt(id, () => {
      this.joined.add(room);
      this.#changed();
    });
    const subscription = this.#client.subscribe(
      `/exchange/chat.exchange/roomId.${room}`,
      (message) => this.#received(room, message),
      {
        id,
        receipt: id,
        ack: 'client',
        durable: 'true',
        'auto-delete': 'false',
        'x-expires': String(QUEUE_EXPIRES),
      },
    );
    this.#subscriptions.set(room, subscription);
  }

  #received(room, frame) {
    if (!this.#subscriptions.has(room)) return;
    const message = this.#tab.take(room, parse(frame.body), frame.headers.redelivered === 'true');
    // Only now: what was not acknowledged when a connection breaks comes again.
    frame.ack();
    if (message) this.#changed(room, message);
  }

  #send(room, message) {
    if (!this.#client.connected) return;
    this.#client.watchForReceipt(message.id, () => {
      message.sent = true;
      this.#tab.keep(room);
      this.#changed(room, message);
    });
    this.#client.publish({
      destination: `/app/message/${room}`,
      body: JSON.stringify({ id: message.id, senderName: message.name, message: message.text }),
      headers: { 'content-type': 'application/json', receipt: message.id, 'idempotency-key': message.id },
    });
  }

  #refused({ headers, body }) {
    if (headers.message === 'Session taken over') {
      // Another tab has the same id, which did not hear this one's claim to it.
      this.#tab.renew();
      this.#client.connectHeaders = { 'client-id': this.#tab.id };
      return;
    }
    for (const room of this.#tab.rooms) {
      const message = this.#tab.waiting(room).find(({ id }) => id === headers['receipt-id']);
      if (!message) continue;
      if (PASSING.has(headers.message)) {
        setTimeout(() => this.#send(room, message), this.#settings.reconnect);
      } else {
        message.problem = headers.message;
        this.#tab.keep(room);
        this.#changed(room, message);
      }
      return;
    }
    this.problem = `${headers.message}: ${body.trim()}`;
    this.#changed();
  }

  #closed() {
    this.connection = 'reconnecting';
    this.brokerUp = true;
    this.joined.clear();
    this.#bridge = (this.#bridge + 1) % this.#settings.bridges.length;
    this.#changed();
  }
}

// A room's message as the page keeps it. The bridge has stamped it; what other programs publish need not be JSON.
function parse(body) {
  try {
    const { id, senderName, message, createdAt } = JSON.parse(body);
    return { id: String(id ?? body), name: String(senderName ?? '?'), text: String(message ?? ''), at: createdAt };
  } catch {
    return { id: body, name: '?', text: body, at: new Date().toISOString() };
  }
}
