// Runs one `sluice serve`, standalone, on ports that are free.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const binary = process.env.E2E_BINARY ?? fileURLToPath(new URL('../../bin/sluice', import.meta.url));
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')));

/** Starts a node: {url, lines, stop()}; url is "http://127.0.0.1:PORT", lines are its log. */
export async function startNode(...args) {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-e2e-'));
  const child = spawn(binary, ['serve', '--store', `sqlite:${join(dir, 'sluice.db')}`, '--http', '127.0.0.1:0', '--relay', '127.0.0.1:0',
    '--limits-cpu', '1', '--limits-memory', '1', '--drain-deadline', '1s', ...args],
    { cwd: dir, env, stdio: ['ignore', 'ignore', 'pipe'] });
  const end = () => child.kill('SIGKILL');
  process.once('exit', end);
  const lines = [];
  const exited = new Promise((resolve) => { child.once('close', resolve); });
  const address = await new Promise((resolve, reject) => {
    exited.then((code) => reject(new Error([`sluice serve ended with ${code}`, ...lines].join('\n'))));
    createInterface({ input: child.stderr }).on('line', (l) => {
      lines.push(l);
      const m = /"node is up".* http=(\S+)/.exec(l);
      if (m) {
        resolve(m[1]);
      }
    });
  });
  return {
    url: `http://${address}`,
    lines,
    async stop() {
      child.kill('SIGINT');
      const late = setTimeout(() => child.kill('SIGKILL'), 15_000);
      await exited;
      clearTimeout(late);
      process.off('exit', end);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
