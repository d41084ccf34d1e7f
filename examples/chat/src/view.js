// What is on the screen, made of what the tab knows and of the connection's state.

const $ = (id) => document.getElementById(id);
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const STATES = { connecting: 'Connecting…', connected: 'Connected', reconnecting: 'Reconnecting…', down: 'Broker down' };

function element(tag, name, text = '') {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

// The first letter of a name, in a colour that goes with the name.
function face(target, name) {
  target.textContent = [...name.trim()][0]?.toUpperCase() ?? '?';
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  target.style.setProperty('--hue', hue);
}

export class View {
  #tab;
  #chat;
  #shown = 0;
  #lines = new Map();
  #unread = new Map();
  #buttons = new Map();

  constructor(tab, chat) {
    this.#tab = tab;
    this.#chat = chat;
  }

  start() {
    $('join').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#unread.delete($('number').valueAsNumber);
      this.#chat.join($('number').valueAsNumber);
      event.target.reset();
      $('text').focus();
    });
    $('leave').addEventListener('click', () => {
      const waiting = this.#tab.waiting(this.#tab.room).length;
      if (waiting === 0 || confirm(`${waiting} of your messages were not sent yet. Leave all the same?`)) {
        this.#chat.leave(this.#tab.room);
      }
    });
    $('compose').addEventListener('submit', (event) => {
      event.preventDefault();
      const text = $('text').value.trim();
      if (!text) return;
      this.#chat.say(this.#tab.room, text);
      event.target.reset();
      $('text').style.height = '';
    });
    $('text').addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      $('compose').requestSubmit();
    });
    $('text').addEventListener('input', ({ target }) => {
      target.style.height = '';
      target.style.height = `${target.scrollHeight + 2}px`;
    });
    $('me').addEventListener('click', () => this.#ask());
    $('welcome').addEventListener('close', () => {
      this.#tab.name = $('name').value.trim() || this.#tab.name;
      this.#tab.save();
      if (!this.#tab.name) this.#ask();
      this.update();
      $('text').focus();
    });
    this.update();
    if (!this.#tab.name) this.#ask();
  }

  // Shows a message that is new or has changed, and all that may have changed with it.
  update(room, message) {
    const { room: current, name } = this.#tab;
    if (this.#shown !== current) {
      this.#shown = current;
      this.#lines.clear();
      $('messages').replaceChildren();
      for (const one of this.#tab.messages(current)) this.#line(one);
      this.#group();
      this.#toEnd();
    } else if (message && room === current) {
      this.#change(message);
    } else if (message && !message.own) {
      this.#unread.set(room, (this.#unread.get(room) ?? 0) + 1);
    }
    face($('me').querySelector('.face'), name);
    $('me').querySelector('.name').textContent = name;
    $('title').textContent = current ? `Room ${current}` : 'No room';
    $('leave').hidden = $('compose').hidden = !current;
    const joined = this.#chat.joined.has(current);
    $('messages').setAttribute('aria-busy', String(!joined));
    $('empty').hidden = !joined || this.#lines.size > 0;
    this.#rooms();
    this.#state();
  }

  #ask() {
    $('name').value = this.#tab.name;
    $('welcome').showModal();
  }

  #state() {
    const { connection, brokerUp, problem } = this.#chat;
    const state = connection === 'connected' && !brokerUp ? 'down' : connection;
    if ($('state').dataset.state !== state || $('state').textContent !== STATES[state]) {
      $('state').dataset.state = state;
      $('state').textContent = STATES[state];
    }
    const waiting = this.#tab.rooms.reduce((sum, room) => sum + this.#tab.waiting(room).length, 0);
    const kept = waiting ? ` ${waiting} not sent yet.` : '';
    const notice = {
      connecting: '',
      connected: problem,
      reconnecting: `The connection is lost. Write on: it is sent when the connection is back.${kept}`,
      down: `The message broker is away. Messages go out when it is back.${kept}`,
    }[state];
    $('notice').hidden = !notice;
    if ($('notice').textContent !== notice) $('notice').textContent = notice;
  }

  // A room keeps its button: one that is replaced between a press and its release loses the click.
  #rooms() {
    const { rooms } = this.#tab;
    for (const [room, button] of this.#buttons) {
      if (rooms.includes(room)) continue;
      button.parentElement.remove();
      this.#buttons.delete(room);
    }
    rooms.forEach((room, index) => {
      const button = this.#buttons.get(room) ?? this.#button(room);
      const item = button.parentElement;
      if ($('rooms').children[index] !== item) $('rooms').insertBefore(item, $('rooms').children[index] ?? null);
      if (room === this.#tab.room) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
      const unread = this.#unread.get(room);
      const [count] = button.children;
      count.hidden = !unread;
      count.firstChild.data = unread ?? 0;
    });
  }

  #button(room) {
    const button = element('button', 'room', `Room ${room} `);
    button.type = 'button';
    button.dataset.room = room;
    const count = element('span', 'count', '0');
    count.append(element('span', 'unseen', ' unread'));
    button.append(count);
    button.addEventListener('click', () => {
      this.#unread.delete(room);
      this.#chat.join(room);
    });
    document.createElement('li').append(button);
    this.#buttons.set(room, button);
    return button;
  }

  // Puts a message's line where it belongs, or away.
  #change(message) {
    const list = $('messages');
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const messages = this.#tab.messages(this.#shown);
    const line = this.#line(message);
    const next = this.#lines.get(messages[messages.indexOf(message) + 1]);
    if (line.nextElementSibling !== (next ?? null)) list.insertBefore(line, next ?? null);
    for (const [one, old] of this.#lines) {
      if (messages.includes(one)) break;
      old.remove();
      this.#lines.delete(one);
    }
    this.#group();
    if (atEnd || (message.own && !message.arrived)) this.#toEnd();
  }

  #line(message) {
    let line = this.#lines.get(message);
    if (!line) {
      line = element('li', message.own ? 'own' : '');
      const avatar = element('span', 'face');
      avatar.setAttribute('aria-hidden', 'true');
      line.append(avatar, element('span', 'name'), element('p', 'text'), element('span', 'foot'));
      this.#lines.set(message, line);
      $('messages').append(line);
    }
    const [avatar, name, text, foot] = line.children;
    face(avatar, message.name);
    name.textContent = message.own ? 'You' : message.name;
    text.textContent = message.text;
    line.dataset.state = message.problem ? 'refused' : message.sent ? 'sent' : 'pending';
    const time = element('time', '', CLOCK.format(new Date(message.at)));
    time.dateTime = message.at;
    foot.replaceChildren(time);
    if (message.problem) {
      const again = element('button', 'again', 'Try again');
      again.type = 'button';
      again.addEventListener('click', () => this.#chat.again(this.#shown, message));
      foot.append(` Not sent: ${message.problem} `, again);
    } else if (message.own) {
      foot.append(element('span', 'mark', message.sent ? '✓ Sent' : '… Waiting'));
    }
    return line;
  }

  // Name and picture stand at the first of several messages of one sender.
  #group() {
    let before = '';
    for (const line of $('messages').children) {
      const name = `${line.className} ${line.children[1].textContent}`;
      line.dataset.first = String(name !== before);
      before = name;
    }
  }

  #toEnd() {
    $('messages').scrollTop = $('messages').scrollHeight;
  }
}
