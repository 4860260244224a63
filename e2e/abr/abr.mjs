// How a viewer's picture follows his network: a real Chromium behind a cable whose rate changes, a stream with a ladder of renditions, and
// a chart of each scene. `make abr` runs it, SCENES="step steady" some of them, REPEAT=3 each so often; the page is bench-results/abr.html.
// With DOCS=1 the charts go into docs/abr too.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromiumPath, launch, openPage, until } from '../lib/browser.mjs';
import { namespaces } from '../lib/netns.mjs';
import { chart, page as html } from './page.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const binary = process.env.E2E_BINARY ?? join(root, 'bin', 'sluice');
const only = process.argv.slice(2);
const repeat = Number(process.env.REPEAT ?? 1);
const rungs = [{ height: 720, rate: 2_500_000 }, { height: 480, rate: 800_000 }, { height: 240, rate: 400_000 }];
const M = 1_000_000;
const mediaPort = 50000;

// Scenes: at each second the rate of the link in bit/s, and what must come of it. The queue is in milliseconds of the rate, the delay in
// milliseconds in each direction.
const scenes = [
  {
    name: 'step', title: '5 Mbit/s, cut to 600 kbit/s, and back', queue: 300,
    link: [[0, 5 * M], [8, 0.6 * M], [24, 5 * M]], seconds: 42,
    must: [
      { what: 'frozen after the cut, s', most: 1.0, of: (r) => frozen(r, 8, 24) },
      { what: 'the right rendition after, s', most: 3, of: (r) => reached(r, 8, 24, (h) => h === 240) },
      { what: 'the best again after, s', most: 10, of: (r) => reached(r, 24, 42, (h) => h === 720) },
      { what: 'frozen on the way up, s', most: 0, of: (r) => frozen(r, 24, 42) },
    ],
  },
  {
    name: 'steady', title: '2 Mbit/s all the time', queue: 300, link: [[0, 2 * M]], seconds: 45,
    must: [
      { what: 'share of the time on the best rendition that fits', least: 0.95, of: (r) => share(r, 5, 45, (s) => s.height === 480) },
      { what: 'frozen, s', most: 0.5, of: (r) => frozen(r, 5, 45) },
    ],
  },
  {
    name: 'ramp', title: 'From 4 Mbit/s down to 700 kbit/s and up again', queue: 300, seconds: 60,
    link: [...Array(60).keys()].map((i) => [i, Math.round((0.7 + 3.3 * Math.abs(i - 30) / 30) * M)]),
    must: [{ what: 'frozen, s', most: 1.5, of: (r) => frozen(r, 4, 60) }],
  },
  {
    name: 'saw', title: '4 Mbit/s and 700 kbit/s in turn, 10 s each', queue: 300, seconds: 50,
    link: [[0, 4 * M], [10, 0.7 * M], [20, 4 * M], [30, 0.7 * M], [40, 4 * M]],
    must: [{ what: 'frozen, s', most: 3, of: (r) => frozen(r, 4, 50) }],
  },
  {
    name: 'burst', title: 'Half of the packets are lost for 150 ms, each 5 s, 5 Mbit/s', queue: 300, seconds: 40, link: [[0, 5 * M]],
    loss: [8, 13, 18, 23, 28, 33].flatMap((t) => [[t, 0.5], [t + 0.15, 0]]),
    must: [{ what: 'frozen, s', most: 2, of: (r) => frozen(r, 7, 40) }],
  },
  {
    name: 'bloat', title: '3 Mbit/s, cut to 1.2 Mbit/s, with a queue of 2 s', queue: 2000, seconds: 40, link: [[0, 3 * M], [10, 1.2 * M]],
    must: [{ what: 'frozen, s', most: 2, of: (r) => frozen(r, 5, 40) }],
  },
  {
    name: 'loss', title: '5 % of the packets are lost, 50 ms in each direction, 5 Mbit/s', queue: 300, seconds: 45, link: [[0, 5 * M]], loss: [[5, 0.05]], delay: 50,
    must: [{ what: 'share of the time frozen', most: 0.01, of: (r) => Math.round(frozen(r, 5, 45) / 40 * 1000) / 1000 }],
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

process.env.LOG && process.on("exit", () => writeFileSync(process.env.LOG, log.join("\n")));
const results = [];
for (const scene of scenes.filter((s) => only.length === 0 || only.includes(s.name))) {
  const runs = [];
  for (let i = 0; i < repeat; i++) {
    runs.push(await run(scene));
    process.stdout.write(`${scene.name}: ${runs.at(-1).values.join(', ')}; without the link ${JSON.stringify(runs.at(-1).beside)}\n`);
  }
  results.push(conclude(scene, runs));
}
mkdirSync(join(root, 'bench-results'), { recursive: true });
writeFileSync(join(root, 'bench-results', 'abr.json'), JSON.stringify(results, null, 1));
writeFileSync(join(root, 'bench-results', 'abr.html'), html(results, rungs));
if (process.env.DOCS) {
  mkdirSync(join(root, 'docs', 'abr'), { recursive: true });
  for (const r of results) {
    writeFileSync(join(root, 'docs', 'abr', `${r.name}.svg`), chart(r, rungs));
  }
}
let bad = 0;
process.stdout.write(`${'scene'.padEnd(7)} ${''.padEnd(50)}  median   worst\n`);
for (const r of results) {
  for (const c of r.checks) {
    bad += c.ok ? 0 : 1;
    process.stdout.write(`${r.name.padEnd(7)} ${c.what.padEnd(50)} ${String(c.median).padStart(7)} ${String(c.worst).padStart(7)}  ${c.ok ? 'ok  ' : 'FAIL'} (${c.limit})\n`);
  }
}
process.stdout.write(`charts: bench-results/abr.html\n`);
children.forEach((c) => c.kill('SIGINT'));
net.remove();
rmSync(dir, { recursive: true, force: true });
process.exit(bad === 0 ? 0 : 1);

/** What came of a scene: the figures of all runs, and the chart of the middle one. The median must keep the limit. */
function conclude(scene, runs) {
  const checks = scene.must.map((m, i) => {
    const values = runs.map((r) => r.values[i]).sort((a, b) => (m.most === undefined ? b - a : a - b)); // the best first
    const median = values[Math.floor(values.length / 2)];
    const limit = m.most === undefined ? `at least ${m.least}` : `at most ${m.most}`;
    return { what: m.what, median, worst: values.at(-1), limit, ok: m.most === undefined ? median >= m.least : median <= m.most };
  });
  const order = [...runs].sort((a, b) => a.values[0] - b.values[0]);
  return { ...order[Math.floor(order.length / 2)], runs: runs.map((r) => r.values), besides: runs.map((r) => r.beside), checks };
}

async function run(scene) {
  process.stdout.write(`${scene.name}: ${scene.title}\n`);
  net.near.rate(scene.link[0][1], scene.queue);
  const relay = scene.delay ? await relayed(scene.delay) : undefined;
  const browser = await launch({ executable: net.far.wrapper(chromiumPath) });
  const result = { name: scene.name, title: scene.title, link: scene.link, loss: scene.loss ?? [], seconds: scene.seconds, samples: [] };
  try {
    const page = await openPage(browser, 'about:blank');
    await page.addInitScript(watchSessions, { from: `${net.near.address} ${mediaPort} `, to: relay?.address });
    await page.goto(`${url}/live/player.html?id=abr`);
    await until('a picture', async () => {
      const p = await sample(page);
      return [p?.decoded > 10, p];
    }, { within: 20_000 });
    const beside = besides(scene.seconds);
    const from = log.length;
    const begin = Date.now();
    const todo = [...scene.link.slice(1).map(([t, rate]) => [t, () => net.near.rate(rate, scene.queue)]), ...(scene.loss ?? []).map(([t, l]) => [t, () => net.far.loses(l)])].sort((a, b) => a[0] - b[0]);
    for (;;) {
      const t = (Date.now() - begin) / 1000;
      if (t > scene.seconds) {
        break;
      }
      while (todo.length > 0 && todo[0][0] <= t) {
        todo.shift()[1]();
      }
      const s = await sample(page);
      if (s) {
        result.samples.push({ ...s, t: Math.round((Date.now() - begin) / 10) / 100 });
      }
      const next = Math.min(200, todo.length > 0 ? todo[0][0] * 1000 - (Date.now() - begin) : 200);
      await new Promise((resolve) => { setTimeout(resolve, Math.max(0, next)); });
    }
    result.beside = await beside;
    const told = log.slice(from).filter((l) => /another rendition|viewer's path/.test(l));
    const session = told.at(-1)?.match(/session=(\S+)/)?.[1]; // before it there are the last moments of those of the scene before
    const lines = told.filter((l) => l.includes(`session=${session}`)).map((l) => ({ l, t: (Date.parse(l.match(/time=(\S+)/)?.[1]) - begin) / 1000, estimate: Number(l.match(/estimate=(\d+)/)?.[1]) }));
    result.estimates = lines.map(({ t, estimate }) => [Math.max(0, t), estimate]);
    result.moves = lines.filter(({ l }) => /another rendition/.test(l)).map(({ l, t, estimate }) => ({ t, estimate, down: /down=true/.test(l), full: /full=true/.test(l), track: Number(l.match(/track=(\d+)/)[1]) }));
    await page.goto('about:blank'); // the player says goodbye: what is still sent to one that is only gone would take the next scene's link
    await until('the viewer has left', () => [log.slice(from).some((l) => l.includes('viewer left') && l.includes(`session=${session}`)), session], { within: 20_000 });
  } finally {
    await browser.close();
    relay?.child.kill('SIGTERM');
    net.near.rate(0);
    net.far.loses(0);
  }
  result.values = scene.must.map((m) => m.of(result));
  return result;
}

/** What a viewer without the link sees meanwhile: when that freezes, too, it was the machine. */
function besides(seconds) {
  const file = join(dir, 'beside.json');
  const child = net.near.spawn(binary, ['load', '--play', `${url}/live/whep/abr`, '--viewers', 1, '--warm', '0s', '--for', `${seconds - 3}s`, '--json', file, '--i-own-this-server'], { stdio: 'ignore' });
  children.push(child);
  return new Promise((resolve) => {
    child.on('exit', () => {
      try {
        const { figures } = JSON.parse(readFileSync(file, 'utf8'));
        resolve({ freezes: figures.freezes, longest: Math.round(figures.gap_max) / 1000 });
      } catch (e) {
        resolve({ error: String(e) });
      }
    });
  });
}

/** A way to the media port that takes so many milliseconds longer in each direction. */
async function relayed(delay) {
  const child = net.far.spawn(join(root, 'bin', 'abr-relay'), [`${net.near.address}:${mediaPort}`, `${delay}ms`], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  for await (const line of createInterface({ input: child.stdout })) {
    return { child, address: `${line.replace(':', ' ')} ` };
  }
  throw new Error('the relay did not start');
}

/** In the page: keeps its sessions, and leads their media another way if there is one. */
function watchSessions({ from, to }) {
  window.sessions = [];
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(...args) {
      super(...args);
      window.sessions.push(this);
    }

    setRemoteDescription(d) {
      if (!to) {
        return super.setRemoteDescription(d);
      }
      const lines = d.sdp.split('\r\n').filter((l) => !/^a=candidate:.* tcp /i.test(l)).map((l) => l.replace(from, to));
      return super.setRemoteDescription({ type: d.type, sdp: lines.join('\r\n') });
    }
  };
}

/** What the page's last session says of its picture. */
function sample(page) {
  return page.evaluate(async () => {
    const pc = window.sessions.at(-1);
    const stats = pc ? [...(await pc.getStats()).values()] : [];
    const s = stats.find((x) => x.type === 'inbound-rtp' && x.kind === 'video');
    return s && { bytes: s.bytesReceived, height: s.frameHeight, decoded: s.framesDecoded, lost: s.packetsLost, freezes: s.freezeCount, frozen: s.totalFreezesDuration };
  });
}
