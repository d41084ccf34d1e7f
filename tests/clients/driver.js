// Drives @stomp/stompjs by commands, the same way under Node.js and in a browser.
(function (root, factory) {
  if (typeof module === 'object' && module.exports) module.exports = factory;
  else root.createDriver = factory;
})(typeof self === 'object' ? self : this, function createDriver(StompJs) {
  'use strict';

  const state = { client: null, connects: [], messages: [], errors: [], closes: [], subscriptions: {}, pings: 0, pongs: 0 };
  const waiting = new Set();

  function changed() {
    for (const check of [...waiting]) check();
  }

  // Resolves once the condition holds; the condition is looked at again whenever something has happened.
  function until(condition, timeout, what) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(check);
        reject(new Error(`${what}: not within ${timeout} ms`));
      }, timeout);
      function check() {
        if (!condition()) return;
        clearTimeout(timer);
        waiting.delete(check);
        resolve();
      }
      waiting.add(check);
      check();
    });
  }

  function subscribe({ destination, headers = {}, acknowledge = false }) {
    const subscription = state.client.subscribe(destination, (message) => {
      state.messages.push({
        destination,
        body: message.isBinaryBody && message.headers['content-type'] === 'application/octet-stream'
          ? Array.from(message.binaryBody)
          : message.body,
        headers: message.headers,
      });
      if (acknowledge) message.ack();
      changed();
    }, headers);
    state.subscriptions[destination] = subscription;
    return subscription;
  }

  const commands = {
    // Connects and, as a page does it, subscribes anew at every CONNECTED.
    async connect({ url, timeout = 20000, heartBeat = [10000, 10000], reconnectDelay = 0, subscriptions = [], options = {} }) {
      state.client = new StompJs.Client({
        brokerURL: url,
        heartbeatOutgoing: heartBeat[0],
        heartbeatIncoming: heartBeat[1],
        reconnectDelay,
        ...options,
        debug(line) {
          if (line.startsWith('>>> PING')) state.pings += 1;
          else if (line.startsWith('<<< PONG')) state.pongs += 1;
          else return;
          changed();
        },
        onConnect(frame) {
          state.connects.push(frame.headers);
          subscriptions.forEach(subscribe);
          changed();
        },
        onStompError(frame) {
          state.errors.push({ headers: frame.headers, body: frame.body });
          changed();
        },
        onWebSocketClose(event) {
          state.closes.push({ code: event.code, reason: event.reason });
          changed();
        },
        onWebSocketError() {
          changed();
        },
      });
      state.client.activate();
      await until(() => state.connects.length > 0, timeout, 'CONNECTED');
      return { headers: state.connects[0], connects: state.connects.length, version: state.client.connectedVersion };
    },

    async connects({ count, timeout = 20000 }) {
      await until(() => state.connects.length >= count, timeout, `${count} CONNECTED`);
      return { connects: state.connects.length };
    },

    async subscribe({ destination, headers = {}, acknowledge = false }) {
      const receipt = `subscribe-${destination}-${Math.random()}`;
      const done = new Promise((resolve) => state.client.watchForReceipt(receipt, resolve));
      subscribe({ destination, headers: { ...headers, receipt }, acknowledge });
      await done;
      return {};
    },

    async unsubscribe({ destination }) {
      state.subscriptions[destination].unsubscribe();
      return {};
    },

    async send({ destination, body, headers = {}, binary = null, receipt = false }) {
      const frame = binary ? { destination, binaryBody: new Uint8Array(binary), headers } : { destination, body, headers };
      if (!receipt) {
        state.client.publish(frame);
        return {};
      }
      const id = `send-${Math.random()}`;
      const done = new Promise((resolve) => state.client.watchForReceipt(id, resolve));
      state.client.publish({ ...frame, headers: { ...headers, receipt: id } });
      await done;
      return {};
    },

    // Sends bodies {senderName, message: "<prefix><number>"} at an even rate.
    async flood({ destination, count, rate, prefix = '' }) {
      const start = Date.now();
      let sent = 0;
      await new Promise((resolve) => {
        const timer = setInterval(() => {
          const due = Math.min(count, Math.floor(((Date.now() - start) * rate) / 1000) + 1);
          for (; sent < due; sent += 1) {
            state.client.publish({ destination, body: JSON.stringify({ senderName: 'driver', message: `${prefix}${sent}` }) });
          }
          if (sent === count) {
            clearInterval(timer);
            resolve();
          }
        }, 4);
      });
      return { sent, seconds: (Date.now() - start) / 1000 };
    },

    // Waits until so many messages have come on a destination and returns them all.
    async messages({ destination, count, timeout = 20000 }) {
      const got = () => state.messages.filter((message) => message.destination === destination);
      let error = null;
      await until(() => state.messages.length >= count && got().length >= count, timeout, `${count} messages`)
        .catch((reason) => { error = String(reason); });
      return { messages: got(), error };
    },

    // Waits for so many more heart-beats each way; the server's are lone line feeds, as long as no frame comes.
    async beats({ count, timeout = 30000 }) {
      const { pings, pongs } = state;
      const both = () => state.pings >= pings + count && state.pongs >= pongs + count;
      await until(both, timeout, `${count} heart-beats each way`);
      return {};
    },

    async errors({ count, timeout = 10000 }) {
      await until(() => state.errors.length >= count, timeout, `${count} errors`);
      return { errors: state.errors };
    },

    async report() {
      const { connects, errors, closes, pings, pongs } = state;
      return { connected: state.client.connected, connects, errors, closes, pings, pongs, messages: state.messages.length };
    },

    async deactivate() {
      await state.client.deactivate();
      return { closes: state.closes };
    },
  };

  return async function drive(command) {
    try {
      return { ok: true, ...(await commands[command.do](command)) };
    } catch (error) {
      return { ok: false, error: String((error && error.stack) || error) };
    }
  };
});
