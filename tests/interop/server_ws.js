// Interop peer: the npm package `ws` on Node. README.md says what each path does.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const { parseArgs } = require('node:util');
const { WebSocketServer } = require('ws');

const PING_PAYLOAD = Buffer.from('interop');
const PONG_TIMEOUT_MS = 5000;

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    cert: { type: 'string' },
    key: { type: 'string' },
    deflate: { type: 'boolean', default: false },
  },
});

function echo(socket) {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
}

function close(socket, query) {
  socket.close(Number(query.get('code') ?? 1000), query.get('reason') ?? '');
}

function ping(socket) {
  const timer = setTimeout(() => socket.close(1002, 'no pong'), PONG_TIMEOUT_MS);
  socket.on('close', () => clearTimeout(timer));
  const answered = new Promise((resolve) => {
    socket.on('pong', (payload) => {
      if (payload.equals(PING_PAYLOAD)) resolve();
    });
  });
  answered.then(() => {
    clearTimeout(timer);
    socket.send('pong received');
  });
  socket.on('message', async (data, isBinary) => {
    // No echo before the pong; what came earlier is echoed in order after it.
    await answered;
    socket.send(data, { binary: isBinary });
  });
  socket.ping(PING_PAYLOAD);
}

function fragments(socket) {
  socket.on('message', (data, isBinary) => {
    // Quarters of the bytes: text is cut inside code points, too.
    const size = Math.max(1, Math.ceil(data.length / 4));
    let at = 0;
    do {
      const fin = at + size >= data.length;
      socket.send(data.subarray(at, at + size), { binary: isBinary, fin });
      at += size;
    } while (at < data.length);
  });
}

function subprotocol(socket) {
  socket.send(socket.protocol);
  echo(socket);
}

function big(socket, query) {
  const data = Buffer.alloc(Number(query.get('n')), 'abcdefghijklmnopqrstuvwxyz');
  socket.send(data, { binary: false });
  echo(socket);
}

function drop(socket) {
  socket.terminate();
}

const routes = new Map([
  ['/echo', echo],
  ['/close', close],
  ['/ping', ping],
  ['/fragments', fragments],
  ['/subprotocol', subprotocol],
  ['/big', big],
  ['/drop', drop],
]);

const server = options.cert
  ? https.createServer({ cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) })
  : http.createServer();

const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: options.deflate,
  maxPayload: 0,
  handleProtocols: (offered, request) =>
    request.url.startsWith('/subprotocol') ? offered.values().next().value : false,
});

server.on('upgrade', (request, stream, head) => {
  const url = new URL(request.url, 'ws://localhost');
  const route = routes.get(url.pathname);
  if (!route) {
    stream.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(request, stream, head, (socket) => {
    // Without a listener a protocol error would end the process; judging it is the test's task.
    socket.on('error', () => {});
    route(socket, url.searchParams);
  });
});

server.listen(Number(options.port), '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});
