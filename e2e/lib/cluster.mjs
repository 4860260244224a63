// Runs `sluice up` in a folder of its own, on ports that are free, and ends it again.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const binary = process.env.E2E_BINARY ?? join(root, 'bin', 'sluice');
// Settings of whoever runs the tests are not those of the tests.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')));
const readyWithin = 40_000; // ms
const stopWithin = 15_000; // ms

/** Finds n free TCP ports. They are all held before the first is let go, so they differ. */
export async function freePorts(n) {
  const servers = await Promise.all(Array.from({ length: n }, () => new Promise((resolve, reject) => {
    const s = createServer().once('error', reject);
    s.listen(0, () => resolve(s));
  })));
  const ports = servers.map((s) => s.address().port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
}

/**
 * Starts a cluster: {publish, play, dir, pid, stop(), sluice(...args)}; publish and play are "https://localhost:PORT".
 * Its output and its logs are shown when it does not get ready.
 */
export async function startCluster({ origins = 1, edges = 2, args = [] } = {}) {
  if (!existsSync(binary)) {
    throw new Error(`${binary} is missing: run "make build" first`);
  }
  const dir = mkdtempSync(join(tmpdir(), 'sluice-e2e-'));
  const [publishPort, playPort] = await freePorts(2);
  const child = spawn(binary, ['up', '--dir', dir, '--publish-port', publishPort, '--play-port', playPort,
    '--origins', origins, '--edges', edges, ...args].map(String), { cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const end = () => child.kill('SIGKILL'); // its own children end with it
  const interrupted = () => process.exit(1);
  process.once('exit', end).once('SIGTERM', interrupted).once('SIGINT', interrupted);
  const lines = [];
  const exited = new Promise((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal)); // its output has been read
    child.once('error', (e) => resolve(e.message));
  });
  const urls = await new Promise((resolve, reject) => {
    const found = {};
    const fail = (why) => {
      child.kill('SIGKILL');
      reject(new Error([`sluice up ${why}`, ...lines, ...logs(dir)].join('\n')));
    };
    const timer = setTimeout(() => fail(`was not ready within ${readyWithin / 1000} s`), readyWithin);
    exited.then((code) => { clearTimeout(timer); fail(`ended with ${code}`); });
    createInterface({ input: child.stderr }).on('line', (l) => lines.push(l));
    createInterface({ input: child.stdout }).on('line', (l) => {
      lines.push(l);
      const m = /^\s*(publish|play)\s+(https:\/\/[^/]+)\//.exec(l);
      if (m) {
        found[m[1]] = m[2];
      }
      if (found.publish && found.play) {
        clearTimeout(timer);
        resolve(found);
      }
    });
  });
  return {
    ...urls,
    dir,
    pid: child.pid,
    output: lines,
    /** Runs another command of the binary on this cluster and returns its output. */
    sluice: (...more) => run([...more, '--dir', dir]),
    async stop() {
      child.kill('SIGINT');
      const late = setTimeout(() => child.kill('SIGKILL'), stopWithin);
      const code = await exited;
      clearTimeout(late);
      process.off('exit', end).off('SIGTERM', interrupted).off('SIGINT', interrupted);
      if (code !== 0) {
        throw new Error([`sluice up ended with ${code}`, ...lines.slice(-20), ...logs(dir)].join('\n'));
      }
      if (!process.env.E2E_KEEP) {
        rmSync(dir, { recursive: true, force: true });
      }
    },
  };
}

/** The ends of all log files. */
export function logs(dir, count = 15) {
  const folder = join(dir, 'logs');
  if (!existsSync(folder)) {
    return [];
  }
  return readdirSync(folder).flatMap((name) => [`--- ${name}`, ...readFileSync(join(folder, name), 'utf8').trimEnd().split('\n').slice(-count)]);
}

function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.on('data', (b) => { out += b; });
    child.stderr.on('data', (b) => { err += b; });
    child.once('error', reject);
    child.once('exit', (code) => (code === 0 ? resolve(out) : reject(new Error(`sluice ${args.join(' ')} ended with ${code}: ${err}`))));
  });
}
