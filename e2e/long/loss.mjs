// The real binary and real clients with a lossy network between them: two namespaces of the kernel, joined by a cable that
// loses 5 % of the packets with media and 1 % of those that go back. It takes a minute or two; `make e2e-long` runs it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromiumPath, launch, openPage, until } from '../lib/browser.mjs';
import { namespaces } from '../lib/netns.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const binary = process.env.E2E_BINARY ?? join(root, 'bin', 'sluice');
const gst = { python: '/usr/bin/python3', script: fileURLToPath(new URL('../gst/client.py', import.meta.url)) };
const media = 0.05; // share of the packets that is lost
const back = 0.01;
const watch = 20; // seconds

let net; // near has the node, far the clients
let node;
let dir;
let films; // with few and with many key frames
let url;
const programs = []; // that a test has started

before(async () => {
  assert.ok(existsSync(binary), `${binary} is missing: run "make build" first`);
  net = namespaces();
  dir = mkdtempSync(join(tmpdir(), 'sluice-long-'));
  films = { few: makeFilm(join(dir, 'few.mkv'), 600), many: makeFilm(join(dir, 'many.mkv'), 60) };
  node = start(net.near, binary, ['serve', '--store', `sqlite:${join(dir, 'db')}`, '--http', ':5080', '--announce', net.near.address, '--limits-cpu', '1', '--limits-memory', '1']); // in a namespace of its own, ports are free
  url = `http://${net.near.address}:5080`;
  await node.says(/node is up/);
}, { timeout: 60_000 });

afterEach(async () => {
  for (const p of programs.splice(0).filter((x) => x !== node)) {
    await p.stop();
  }
});

after(async () => {
  await node?.stop();
  net?.remove();
  rmSync(dir, { recursive: true, force: true });
}, { timeout: 30_000 });

/** Starts a program in a namespace: {child, said, out, says(), stop()}; said are its lines, of both outputs. */
function start(ns, program, args) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')));
  const child = ns.spawn(program, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
  const said = [];
  const out = [];
  createInterface({ input: child.stdout }).on('line', (l) => { said.push(l); out.push(l); });
  createInterface({ input: child.stderr }).on('line', (l) => said.push(l));
  const ended = new Promise((resolve) => { child.once('close', resolve).once('error', resolve); });
  const p = {
    child, said, out, ended,
    says: (line) => until(`${program} says ${line}`, () => [said.some((l) => line.test(l)), said.slice(-5)], { within: 20_000 }),
    async stop() {
      child.kill('SIGINT');
      const late = setTimeout(() => child.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(late);
    },
  };
  programs.push(p);
  return p;
}

/** Publishes a film; from far it goes by the cable. */
async function publish(ns, id, film = films.many) {
  const p = start(ns, binary, ['publish', film, `${url}/live/whip/${id}`, '--loop']);
  await node.says(new RegExp(`stream published.*live/${id}`));
  return p;
}

/** Makes a film with a key frame each so many pictures, 30 a second. */
function makeFilm(file, apart) {
  const r = spawnSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'testsrc2=size=640x360:rate=30', '-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000', '-t', '40',
    '-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-profile:v', 'baseline', '-b:v', '1500k', '-minrate', '1500k', '-maxrate', '1500k', '-bufsize', '300k', '-g', String(apart),
    '-c:a', 'libopus', '-b:a', '64k', file], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.error?.code === 'ENOENT' ? 'ffmpeg is missing: apt-get install ffmpeg' : r.stderr);
  return file;
}

/** Loses packets in both directions: those with media go from one end to the other. */
function lose(from, to) {
  to.loses(media);
  from.loses(back);
}

/** What the page's only session says of its picture. Packets that came again as RTX stay in packetsLost. */
const picture = (page) => page.evaluate(async () => {
  const stats = [];
  for (const pc of window.sessions) {
    stats.push(...(await pc.getStats()).values());
  }
  const s = stats.filter((x) => x.type === 'inbound-rtp' && x.kind === 'video').at(-1);
  return s && {
    sessions: window.sessions.length, decoded: s.framesDecoded, lost: s.packetsLost, again: s.retransmittedPacketsReceived ?? 0, nacks: s.nackCount, plis: s.pliCount, freezes: s.freezeCount, frozen: s.totalFreezesDuration, at: performance.now(),
  };
});

describe('5 % of the packets are lost', { timeout: 240_000 }, () => {
  test('Chromium plays on, and what was lost comes again', async (t) => {
    // What is lost shortly before a key frame need not come again, and Chromium doesn't ask for it a second time: a film with few of them.
    await publish(net.near, 'chromium', films.few);
    const browser = await launch({ executable: net.far.wrapper(chromiumPath) });
    t.after(() => browser.close());
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
    await page.goto(`${url}/live/player.html?id=chromium`);
    await until('a picture', async () => {
      const p = await picture(page);
      return [p?.decoded > 30, p];
    }, { within: 20_000 });
    lose(net.near, net.far);
    const before = await picture(page);
    let last = before;
    for (let second = 0; second < watch; second += 1) {
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
      const now = await picture(page);
      assert.ok(now.decoded >= last.decoded + 15, `second ${second}: ${now.decoded - last.decoded} pictures; ${JSON.stringify(now)}`);
      last = now;
    }
    const wire = net.far.udp();
    net.far.loses(0);
    net.near.loses(0);
    await until('what was asked for last has come', async () => {
      const now = await picture(page);
      const quiet = now.again === last.again && now.lost === last.lost;
      last = now;
      return [quiet, now];
    }, { every: 500 });
    const d = Object.fromEntries(Object.keys(last).map((k) => [k, last[k] - before[k]]));
    const seconds = d.at / 1000;
    t.diagnostic(`${wire.lost} of ${wire.came} datagrams lost, ${d.lost} packets of the picture, of which ${d.again} came again; `
      + `${(d.decoded / seconds).toFixed(1)} pictures a second, ${d.freezes} freezes of ${d.frozen.toFixed(2)} s; ${d.nacks} NACKs, ${d.plis} PLIs`);
    assert.ok(wire.lost > wire.came * 0.03, `only ${wire.lost} of ${wire.came} were lost`);
    assert.ok(d.lost > 60, `${d.lost} packets were lost, which is too few to say anything`);
    assert.ok(d.again >= d.lost * 0.99, `of ${d.lost} packets that were lost ${d.again} came again`);
    assert.equal(d.sessions, 0, 'the session stayed');
    assert.equal(d.plis, 0, 'no key frame was needed');
    assert.ok(d.frozen < 1, `frozen for ${d.frozen} s`);
    assert.ok(d.decoded > 28 * seconds, `${d.decoded} pictures in ${seconds} s`);
    assert.deepEqual(page.problems, []);
  });

  test('sound that goes with redundancy is seldom concealed', async (t) => {
    await publish(net.near, 'sound');
    const browser = await launch({ executable: net.far.wrapper(chromiumPath) });
    t.after(() => browser.close());
    const page = await openPage(browser, `${url}/live/play.html?autoplay=false`); // for its origin
    await page.evaluate(async (endpoint) => {
      window.open = async (codecs) => {
        const pc = new RTCPeerConnection();
        const { receiver } = pc.addTransceiver('audio', { direction: 'recvonly' });
        pc.getTransceivers()[0].setCodecPreferences(RTCRtpReceiver.getCapabilities('audio').codecs.filter((c) => codecs.includes(c.mimeType)));
        await pc.setLocalDescription();
        const res = await fetch(endpoint, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
        await pc.setRemoteDescription({ type: 'answer', sdp: await res.text() });
        const sound = new Audio(); // samples are made when somebody listens
        sound.srcObject = new MediaStream([receiver.track]);
        await sound.play();
        return pc;
      };
      window.pair = [await window.open(['audio/opus', 'audio/red']), await window.open(['audio/opus'])];
    }, `${url}/live/whep/sound`);
    const look = () => page.evaluate(() => Promise.all(window.pair.map(async (pc) => {
      const s = [...(await pc.getStats()).values()].find((x) => x.type === 'inbound-rtp');
      return { packets: s?.packetsReceived ?? 0, bytes: s?.bytesReceived, lost: s?.packetsLost, fec: s?.fecPacketsReceived, samples: s?.totalSamplesReceived, concealed: s?.concealedSamples - s?.silentConcealedSamples };
    })));
    const sound = async (n) => { await until('sound', async () => { const now = await look(); return [now.every((s) => s.packets > n), now]; }, { within: 20_000 }); };
    await sound(100);
    net.far.loses(0.08);
    await new Promise((resolve) => { setTimeout(resolve, 12_000); }); // until both have told of it
    const before = await look();
    await new Promise((resolve) => { setTimeout(resolve, watch * 1000); });
    const after_ = await look();
    net.far.loses(0);
    const share = after_.map((s, i) => (s.concealed - before[i].concealed) / (s.samples - before[i].samples));
    const rate = after_.map((s, i) => Math.round(((s.bytes - before[i].bytes) * 8) / watch / 1000));
    t.diagnostic(`of the sound ${(share[0] * 100).toFixed(2)} % were concealed with redundancy (${rate[0]} kbit/s), ${(share[1] * 100).toFixed(2)} % without (${rate[1]} kbit/s); ${JSON.stringify(after_)}`);
    assert.ok(share[1] > 0.03, 'too little was lost to say anything');
    assert.ok(share[0] < share[1] / 3, 'redundancy helps');
    assert.deepEqual(page.problems, []);
  });

  // GStreamer 1.22 asks for no more than its share of RTCP allows (RFC 4585 §3.5.2), about six times a second, and shows
  // nothing after a gap until the next key frame: pictures go on, but not all of them.
  test('GStreamer goes on', async (t) => {
    await publish(net.near, 'gstreamer');
    const player = start(net.far, gst.python, [gst.script, 'play', `${url}/live/whep/gstreamer`, '--nack']);
    const frames = () => player.out.map((l) => JSON.parse(l)).filter((s) => s.event === 'frames').at(-1)?.H264 ?? 0;
    await until('a picture', async () => [frames() > 30, player.said.slice(-3).map((l) => l.slice(0, 300))], { within: 20_000 });
    lose(net.near, net.far);
    const seen = [frames()];
    for (let i = 0; i < 2; i += 1) {
      await new Promise((resolve) => { setTimeout(resolve, 6000); });
      seen.push(frames());
    }
    const wire = net.far.udp();
    t.diagnostic(`${wire.lost} of ${wire.came} datagrams lost; pictures after 6 s each: ${seen}`);
    assert.ok(wire.lost > wire.came * 0.03, `only ${wire.lost} of ${wire.came} were lost`);
    assert.ok(seen.at(-1) - seen[0] >= 60, `${seen.at(-1) - seen[0]} pictures in 12 s: ${seen}`);
    net.far.loses(0);
    net.near.loses(0);
    const mended = frames(); // its session has lasted longer than the silence after which a peer is gone: it sends no checks, only reports
    await until('all pictures when nothing is lost any more', async () => [frames() > mended + 240, [mended, frames()]], { within: 14_000 });
    player.child.stdin.end();
    assert.equal(await player.ended, 0, player.said.slice(-3).join('\n'));
  });

  test('a publisher behind it is seen whole', async (t) => {
    lose(net.far, net.near);
    const source = await publish(net.far, 'publisher');
    const r = start(net.near, binary, ['play', `${url}/live/whep/publisher`, '--duration', '15s', '--json']);
    await new Promise((resolve) => { setTimeout(resolve, 13_000); });
    const wire = net.near.udp();
    net.far.loses(0);
    net.near.loses(0); // what is under way at the end would count as lost
    assert.equal(await r.ended, 0, r.said.slice(-5).join('\n'));
    const report = JSON.parse(r.out.join('\n'));
    t.diagnostic(`${wire.lost} of ${wire.came} datagrams lost; ${JSON.stringify(report.video)}`);
    assert.ok(wire.lost > wire.came * 0.03, `only ${wire.lost} of ${wire.came} were lost`);
    const v = report.video;
    assert.ok(v.late + v.lost > 60, `${v.late} packets came late, which is too few to say anything`);
    assert.ok(v.lost <= (v.late + v.lost) * 0.01, `${v.lost} packets never came, ${v.late} came late`);
    assert.ok(v.frames > 28 * 15 && v.frozenMs < 1000, `${v.frames} pictures in 15 s, frozen for ${v.frozenMs} ms`);
    assert.ok(source.child.exitCode === null, 'the publisher went on');
  });
});
