// A WebSocket server with Node's ws: server.js PORT none|takeover|no-takeover.
// The path selects what it does with a connection. It prints the end of each
// connection as a line of JSON.
'use strict';

const { WebSocketServer } = require('ws');

const [port, compression] = process.argv.slice(2);
const perMessageDeflate = {
  'none': false,
  'takeover': { threshold: 0 },
  'no-takeover': { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true },
}[compression];

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(port),
  perMessageDeflate,
  handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
});

server.on('connection', (socket, request) => {
  const url = new URL(request.url, 'ws://peer');
  const query = url.searchParams;
  socket.on('error', (error) => console.error(request.url, error.message));
  socket.on('close', (code, reason) => {
    console.log(JSON.stringify({ id: query.get('id'), code, reason: reason.toString() }));
  });
  switch (url.pathname) {
    case '/echo':
      socket.on('message', (data, binary) => socket.send(data, { binary }));
      break;
    case '/fragments': // the echo comes in seven frames, with pings between them
      socket.on('message', (data, binary) => {
        const size = Math.ceil(data.length / 7);
        for (let i = 0; i < 7; i++) {
          socket.send(data.subarray(i * size, (i + 1) * size), { binary, fin: i === 6 });
          socket.ping(`after ${i}`);
        }
      });
      break;
    case '/ping':
      socket.on('pong', (data) => socket.send(`pong ${data}`));
      socket.ping(query.get('payload'));
      break;
    case '/close':
      if (query.has('code')) {
        socket.send('goodbye');
        socket.close(Number(query.get('code')), query.get('reason'));
      } else {
        socket.close();
      }
      break;
    case '/abort':
      socket.on('message', () => socket.terminate());
      break;
    default:
      socket.close(1011, `no such path: ${url.pathname}`);
  }
});

// The tests hold the other end of standard input: the server exits with them.
process.stdin.on('end', () => process.exit());
process.stdin.resume();
