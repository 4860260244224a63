// How a viewer's picture follows his network: a real Chromium behind a cable whose rate changes, a stream with a ladder of renditions, and
// a chart of each run. `make abr` runs it; the page is bench-results/abr.html.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromiumPath, launch, openPage, until } from '../lib/browser.mjs';
import { namespaces } from '../lib/netns.mjs';
import { page as html } from './page.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const binary = process.env.E2E_BINARY ?? join(root, 'bin', 'sluice');
const only = process.argv.slice(2);
const rungs = [{ height: 720, rate: 2_500_000 }, { height: 480, rate: 800_000 }, { height: 240, rate: 400_000 }];
const M = 1_000_000;

// Scenes: at each second the rate of the link in bit/s, and what must come of it. The queue is in milliseconds of the rate.
const scenes = [
  {
    name: 'step', title: '5 Mbit/s, cut to 600 kbit/s, and back', queue: 300,
    link: [[0, 5 * M], [12, 0.6 * M], [32, 5 * M]], seconds: 52,
    must: [
      { what: 'frozen after the cut, s', most: 1.0, of: (r) => frozen(r, 12, 32) },
      { what: 'the right rendition after, s', most: 3, of: (r) => reached(r, 12, 32, (h) => h === 240) },
      { what: 'the best again after, s', most: 10, of: (r) => reached(r, 32, 52, (h) => h === 720) },
      { what: 'frozen on the way up, s', most: 0, of: (r) => frozen(r, 32, 52) },
    ],
  },
  {
    name: 'steady', title: '2 Mbit/s all the time', queue: 300, link: [[0, 2 * M]], seconds: 50,
    must: [
      { what: 'share of the time on the best rendition that fits', least: 0.95, of: (r) => share(r, 10, 50, (s) => s.height === 480) },
      { what: 'frozen, s', most: 0.5, of: (r) => frozen(r, 10, 50) },
    ],
  },
  {
    name: 'ramp', title: 'down to 500 kbit/s and up again within a minute', queue: 300, seconds: 60,
    link: [...Array(30).keys()].map((i) => [i * 2, (i < 15 ? 4 - i * 0.25 : 0.5 + (i - 15) * 0.25) * M]),
    must: [{ what: 'frozen, s', most: 1.5, of: (r) => frozen(r, 4, 60) }],
  },
  {
    name: 'saw', title: '4 Mbit/s and 700 kbit/s in turn, 10 s each', queue: 300, seconds: 60,
    link: [[0, 4 * M], [10, 0.7 * M], [20, 4 * M], [30, 0.7 * M], [40, 4 * M], [50, 0.7 * M]],
    must: [{ what: 'frozen, s', most: 3, of: (r) => frozen(r, 4, 60) }],
  },
  {
    name: 'bloat', title: '3 Mbit/s, cut to 1 Mbit/s, with a queue of 2 s', queue: 2000, seconds: 40, link: [[0, 3 * M], [10, 1 * M]],
    must: [{ what: 'frozen, s', most: 2, of: (r) => frozen(r, 5, 40) }],
  },
  {
    name: 'loss', title: '5 % of the packets are lost, 5 Mbit/s', queue: 300, seconds: 45, link: [[0, 5 * M]], loss: [[8, 0.05]],
    must: [{ what: 'share of the time frozen', most: 0.01, of: (r) => frozen(r, 8, 45) / 37 }],
  },
];

const frozen = (r, from, to) => {
  const at = (t) => r.samples.filter((s) => s.t <= t).at(-1)?.frozen ?? 0;
  return Math.round((at(to) - at(from)) * 100) / 100;
};
const reached = (r, from, to, ok) => {
  const first = r.samples.find((s, i) => s.t > from && s.t <= to && r.samples.slice(i, i + 5).every((x) => ok(x.height)));
  return first ? Math.round((first.t - from) * 10) / 10 : Infinity;
};
const share = (r, from, to, ok) => {
  const all = r.samples.filter((s) => s.t >= from && s.t <= to);
  return Math.round(all.filter(ok).length / all.length * 1000) / 1000;
};

const net = namespaces();
const dir = mkdtempSync(join(tmpdir(), 'sluice-abr-'));
const children = [];
process.on('exit', () => children.forEach((c) => c.kill('SIGKILL')));

function start(ns, args, says) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')));
  const child = ns.spawn(binary, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const said = [];
  for (const s of [child.stdout, child.stderr]) {
    createInterface({ input: s }).on('line', (l) => said.push(l));
  }
  return until(`sluice ${args[0]} says ${says}`, () => [said.some((l) => says.test(l)), said.slice(-5)], { within: 20_000 }).then(() => said);
}

const log = await start(net.near, ['serve', '--store', `sqlite:${join(dir, 'db')}`, '--http', ':5080', '--announce', net.near.address, '--limits-cpu', '1', '--log-level', 'debug',
  '--ladder-preset', 'ultrafast', '--ladder-rungs', rungs.slice(1).map((r) => `${r.height}p:${r.rate / 1000}k`).join(',')], /node is up/);
const url = `http://${net.near.address}:5080`;
await start(net.near, ['publish', 'test-pattern', `${url}/live/whip/abr`, '--bitrate', String(rungs[0].rate)], /publishing/);
await until('renditions', () => [log.some((l) => /renditions are made/.test(l)), log.slice(-3)], { within: 20_000 });

const results = [];
for (const scene of scenes.filter((s) => only.length === 0 || only.includes(s.name))) {
  results.push(await run(scene));
}
mkdirSync(join(root, 'bench-results'), { recursive: true });
writeFileSync(join(root, 'bench-results', 'abr.json'), JSON.stringify(results, null, 1));
writeFileSync(join(root, 'bench-results', 'abr.html'), html(results, rungs));
let bad = 0;
for (const r of results) {
  for (const c of r.checks) {
    bad += c.ok ? 0 : 1;
    process.stdout.write(`${c.ok ? 'ok  ' : 'FAIL'} ${r.name.padEnd(7)} ${c.what.padEnd(50)} ${String(c.value).padStart(7)}  (${c.limit})\n`);
  }
}
process.stdout.write(`charts: bench-results/abr.html\n`);
children.forEach((c) => c.kill('SIGINT'));
net.remove();
rmSync(dir, { recursive: true, force: true });
process.exit(bad === 0 ? 0 : 1);

async function run(scene) {
  process.stdout.write(`${scene.name}: ${scene.title}\n`);
  net.near.rate(scene.link[0][1], scene.queue);
  const browser = await launch({ executable: net.far.wrapper(chromiumPath) });
  const result = { name: scene.name, title: scene.title, link: scene.link, seconds: scene.seconds, samples: [] };
  try {
    const page = await openPage(browser, 'about:blank');
    await page.addInitScript(() => {
      window.sessions = [];
      const Real = window.RTCPeerConnection;
      window.RTCPeerConnection = class extends Real {
        constructor(...args) {
          super(...args);
          window.sessions.push(this);
        }
      };
    });
    await page.goto(`${url}/live/player.html?id=abr`);
    await until('a picture', async () => {
      const p = await sample(page);
      return [p?.decoded > 10, p];
    }, { within: 20_000 });
    const from = log.length;
    const begin = Date.now();
    const todo = [...scene.link.slice(1).map(([t, rate]) => [t, () => net.near.rate(rate, scene.queue)]), ...(scene.loss ?? []).map(([t, l]) => [t, () => net.far.loses(l)])];
    let last;
    for (;;) {
      const t = (Date.now() - begin) / 1000;
      if (t > scene.seconds) {
        break;
      }
      while (todo.length > 0 && todo.some(([at]) => at <= t)) {
        todo.splice(todo.findIndex(([at]) => at <= t), 1)[0][1]();
      }
      const s = await sample(page);
      if (s) {
        result.samples.push({ t: Math.round(t * 100) / 100, height: s.height, frozen: s.frozen, freezes: s.freezes, bits: last ? Math.round((s.bytes - last.bytes) * 8 / (s.at - last.at) * 1000) : 0, fps: s.fps, delay: s.delay, decoded: s.decoded, lost: s.lost, nacks: s.nacks, plis: s.plis, keys: s.keys });
        last = s;
      }
      await new Promise((resolve) => { setTimeout(resolve, 200); });
    }
    result.moves = log.slice(from).filter((l) => /another rendition/.test(l)).map((l) => ({
      t: (Date.parse(l.match(/time=(\S+)/)[1]) - begin) / 1000, estimate: Number(l.match(/estimate=(\d+)/)[1]), down: /down=true/.test(l), full: /full=true/.test(l), track: Number(l.match(/track=(\d+)/)[1]),
    }));
  } finally {
    await browser.close();
    net.near.rate(0);
    net.far.loses(0);
  }
  result.checks = scene.must.map((m) => {
    const value = m.of(result);
    return { what: m.what, value, limit: m.most === undefined ? `at least ${m.least}` : `at most ${m.most}`, ok: m.most === undefined ? value >= m.least : value <= m.most };
  });
  return result;
}

/** What the page's last session says of its picture. */
function sample(page) {
  return page.evaluate(async () => {
    const pc = window.sessions.at(-1);
    const stats = pc ? [...(await pc.getStats()).values()] : [];
    const s = stats.find((x) => x.type === 'inbound-rtp' && x.kind === 'video');
    return s && {
      at: performance.now(), bytes: s.bytesReceived, height: s.frameHeight, decoded: s.framesDecoded, fps: s.framesPerSecond ?? 0,
      lost: s.packetsLost, nacks: s.nackCount, plis: s.pliCount, keys: s.keyFramesDecoded, freezes: s.freezeCount, frozen: s.totalFreezesDuration, delay: s.jitterBufferEmittedCount ? s.jitterBufferDelay / s.jitterBufferEmittedCount : 0,
    };
  });
}
