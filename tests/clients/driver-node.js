// The driver under Node.js: a JSON command a line in, a JSON answer a line out.
'use strict';

const readline = require('node:readline');

Object.assign(globalThis, { WebSocket: require('ws') });

const StompJs = require('./node_modules/@stomp/stompjs/bundles/stomp.umd.js');
const drive = require('./driver.js')(StompJs);

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const command = JSON.parse(line);
  const answer = await drive(command);
  process.stdout.write(`${JSON.stringify({ ...answer, id: command.id })}\n`);
}).on('close', () => process.exit(0));
