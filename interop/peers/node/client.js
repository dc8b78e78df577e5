// A WebSocket client with Node's ws: client.js URL MESSAGE... sends the messages and
// prints what happens, one JSON object a line, until the connection has ended.
'use strict';

const WebSocket = require('ws');

const [url, ...messages] = process.argv.slice(2);
const print = (line) => console.log(JSON.stringify(line));

const socket = new WebSocket(url, { maxPayload: 0 });
socket.on('open', () => {
  print({ event: 'open', extensions: socket.extensions });
  messages.forEach((message) => socket.send(message));
});
socket.on('message', (data, binary) => print({ event: 'message', binary, text: data.toString() }));
socket.on('ping', () => print({ event: 'ping' }));
socket.on('unexpected-response', (request, response) => {
  print({ event: 'refused', code: response.statusCode });
  process.exit();
});
socket.on('error', (error) => print({ event: 'error', text: error.message }));
socket.on('close', (code, reason) => print({ event: 'close', code, text: reason.toString() }));
