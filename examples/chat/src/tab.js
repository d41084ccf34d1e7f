// What this tab knows, kept in its sessionStorage: it outlives a reload and belongs to no other tab.

const KEPT = 200;
const CLAIM_TIME = 150;

// A name that nobody else has. (crypto.randomUUID() is missing on pages without TLS that are not on localhost.)
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Tab {
  #storage;
  #rooms = new Map();

  constructor(storage = sessionStorage) {
    this.#storage = storage;
    const kept = this.#read('chat') ?? {};
    this.id = kept.id ?? newId();
    this.name = kept.name ?? '';
    this.room = kept.room ?? 7;
    for (const room of kept.rooms ?? [this.room]) this.#rooms.set(room, this.#read(`chat.${room}`) ?? []);
    this.save();
  }

  // A duplicated tab begins with a copy of the other's sessionStorage: whoever was there first keeps the id.
  async claim() {
    const channel = new BroadcastChannel('chat');
    const taken = new Promise((resolve) => {
      channel.onmessage = ({ data }) => data.taken === this.id && resolve(true);
      setTimeout(resolve, CLAIM_TIME, false);
    });
    channel.postMessage({ asked: this.id });
    if (await taken) this.renew();
    channel.onmessage = ({ data }) => data.asked === this.id && channel.postMessage({ taken: this.id });
  }

  renew() {
    this.id = newId();
    this.save();
  }

  get rooms() {
    return [...this.#rooms.keys()].sort((one, other) => one - other);
  }

  // A room's messages in the order of the screen: what came from the room, and behind it what has not come back yet.
  //
  //   { id, name, text, at, own, sent, arrived, problem }
  //
  // `sent` is true once the RECEIPT was there, `arrived` once the room delivered the message.
  messages(room) {
    return this.#rooms.get(room) ?? [];
  }

  // One's own messages without a RECEIPT, oldest first.
  waiting(room) {
    return this.messages(room).filter((message) => message.own && !message.sent);
  }

  join(room) {
    if (!this.#rooms.has(room)) this.#rooms.set(room, []);
    this.room = room;
    this.save();
  }

  leave(room) {
    this.#rooms.delete(room);
    this.#storage.removeItem(`chat.${room}`);
    if (this.room === room) this.room = this.rooms[0] ?? 0;
    this.save();
  }

  // Puts a message of one's own at the end.
  write(room, text) {
    const message = { id: newId(), name: this.name, text, at: new Date().toISOString(), own: true };
    this.messages(room).push(message);
    this.keep(room);
    return message;
  }

  // Takes what the room delivered. Returns the message, or null where it is on the screen already.
  take(room, { id, name, text, at }, redelivered) {
    const messages = this.messages(room);
    const index = messages.findLastIndex((message) => message.id === id);
    const known = messages[index];
    // The bridge could not know whether this copy had been seen before. The page can.
    if (known?.arrived && redelivered) return null;
    const message = known && !known.arrived ? messages.splice(index, 1)[0] : { id, own: known?.own ?? false, sent: true };
    Object.assign(message, { name, text, at, arrived: true });
    messages.splice(messages.findLastIndex((one) => one.arrived) + 1, 0, message);
    this.keep(room);
    return message;
  }

  // Writes a room's messages down.
  keep(room) {
    const messages = this.messages(room);
    const old = messages.filter((message) => message.arrived && message.sent);
    for (const message of old.slice(0, Math.max(messages.length - KEPT, 0))) messages.splice(messages.indexOf(message), 1);
    this.#write(`chat.${room}`, messages);
  }

  save() {
    this.#write('chat', { id: this.id, name: this.name, room: this.room, rooms: this.rooms });
  }

  #read(key) {
    try {
      return JSON.parse(this.#storage.getItem(key));
    } catch {
      return null;
    }
  }

  #write(key, value) {
    try {
      this.#storage.setItem(key, JSON.stringify(value));
    } catch (error) {
      console.warn(`not kept over a reload: ${error.message}`);
    }
  }
}
