// What a Node program leans on: threads, children, pipes, file watching, TLS. Prints a line per part.
'use strict';
const assert = require('node:assert/strict');
const { execFileSync, fork, spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pipeline } = require('node:stream/promises');
const tls = require('node:tls');
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const zlib = require('node:zlib');

const WORKERS = 4;
const ROUNDS = 10000;

async function threads() {
  const counter = new Int32Array(new SharedArrayBuffer(4));
  const workers = Array.from({ length: WORKERS }, () => new Worker(__filename, { workerData: counter }));
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  assert.equal(counter[0], WORKERS * ROUNDS);
}

async function children() {
  assert.equal(execFileSync('sh', ['-c', 'echo $((6 * 7))'], { encoding: 'utf8' }), '42\n');
  const child = fork(__filename, ['child']);
  child.send({ question: 6 });
  const [answer] = await once(child, 'message');
  const [code] = await once(child, 'exit');
  assert.deepEqual([answer, code], [{ answer: 42 }, 5]);
  const sleeper = spawn('sleep', ['600'], { stdio: 'ignore' });
  sleeper.kill('SIGTERM');
  const [, signal] = await once(sleeper, 'exit');
  assert.equal(signal, 'SIGTERM');
}

async function pipes() {
  const bytes = Buffer.alloc(1 << 20, 'pipe');
  const cat = spawn('cat', [], { stdio: ['pipe', 'pipe', 'inherit'] });
  const chunks = [];
  cat.stdout.on('data', (chunk) => chunks.push(chunk));
  cat.stdin.end(bytes);
  await once(cat, 'close');
  assert.ok(Buffer.concat(chunks).equals(bytes));
}

async function files(directory) {
  const [plain, packed] = ['plain', 'plain.gz'].map((name) => path.join(directory, name));
  fs.writeFileSync(plain, 'x'.repeat(100000));
  await pipeline(fs.createReadStream(plain), zlib.createGzip(), fs.createWriteStream(packed));
  fs.copyFileSync(packed, plain);
  assert.ok(fs.statSync(plain).size < 1000);
}

async function watching(directory) {
  const watcher = fs.watch(directory);
  const names = [];
  const seen = new Promise((resolve) => watcher.on('change', (_, name) => {
    names.push(name);
    if (name === 'watched') resolve();
  }));
  fs.writeFileSync(path.join(directory, 'watched'), 'now');
  await seen;
  watcher.close();
}

async function secure(directory) {
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => path.join(directory, name));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
    '-keyout', key, '-out', cert, '-days', '1', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
    { stdio: 'pipe' });
  const options = { key: fs.readFileSync(key), cert: fs.readFileSync(cert) };
  const server = tls.createServer(options, (socket) => socket.pipe(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const to = { host: '127.0.0.1', port: server.address().port, servername: 'localhost', ca: options.cert };
  const client = tls.connect(to);
  await once(client, 'secureConnect');
  assert.ok(client.authorized);
  client.write('secret');
  const [echo] = await once(client, 'data');
  assert.equal(echo.toString(), 'secret');
  client.end();
  server.close();
}

async function main() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'programs-node-'));
  try {
    for (const part of [threads, children, pipes, files, watching, secure]) {
      await part(directory);
      console.log(`OK ${part.name}`);
    }
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
  const left = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' });
  left.unref();
  console.log(`LEFT ${left.pid}`);
  process.exitCode = 41;
}

if (!isMainThread) {
  for (let i = 0; i < ROUNDS; i += 1) Atomics.add(workerData, 0, 1);
} else if (process.argv[2] === 'child') {
  process.once('message', ({ question }) => process.send({ answer: question * 7 }, () => process.exit(5)));
} else {
  main();
}
