import './style.css';
import { Chat } from './chat.js';
import { Tab } from './tab.js';
import { View } from './view.js';

const settings = await (await fetch('settings.json')).json();
const tab = new Tab();
await tab.claim();
const chat = new Chat(tab, settings, (room, message) => view.update(room, message));
const view = new View(tab, chat);
view.start();
chat.start();
