// WHIP and WHEP clients that are not ours: two from npm in Chromium, cross-origin, and GStreamer's webrtcbin.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { launch, openPage, until } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';
import { servePages } from './lib/server.mjs';

const python = '/usr/bin/python3'; // Debian's: it has the bindings
const script = fileURLToPath(new URL('gst/client.py', import.meta.url));

let cluster;
let pages;
let browser;
let bundle;

before(async () => {
  const built = await build({ entryPoints: [fileURLToPath(new URL('pages/clients.mjs', import.meta.url))], bundle: true, write: false, format: 'esm', logLevel: 'error' });
  bundle = built.outputFiles[0].text;
  browser = await launch();
  pages = await servePages();
  cluster = await startCluster({ edges: 1 });
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await pages?.stop();
  await cluster?.stop();
}, { timeout: 30_000 });

/** A page of another origin with the clients in it. page.answers has what the server said, page.problems what went wrong. */
async function open() {
  const page = await openPage(browser, `${pages.url}/clients.html`);
  page.answers = [];
  page.on('response', (r) => {
    if (/\/whip\/|\/whep\//.test(r.url())) page.answers.push(`${r.request().method()} ${r.status()}`);
  });
  page.on('console', (m) => { if (m.type() === 'error') page.problems.push(m.text()); });
  await page.addScriptTag({ content: bundle, type: 'module' });
  await page.waitForFunction(() => window.clients);
  return page;
}

async function close(...list) {
  for (const page of list) {
    assert.deepEqual(page.problems, [], 'the page and its clients find nothing odd');
    assert.deepEqual(page.answers.filter((a) => !/ 20[014]$/.test(a)), [], 'every request was taken');
    await page.context().close();
  }
}

const call = (page, name, ...args) => page.evaluate(([n, a]) => window.clients[n](...a), [name, args]);
const whip = (id) => `${cluster.publish}/live/whip/${id}`;
const whep = (id) => `${cluster.play}/live/whep/${id}`;

/** Waits until the page has decoded more pictures and heard more sound. */
async function watches(page, { frames = 15, sound = 4800 } = {}) {
  const from = await call(page, 'watched');
  return until('more picture and sound', async () => {
    const now = await call(page, 'watched');
    const ok = now.frames >= from.frames + frames && now.sound >= from.sound + sound && (frames === 0 || now.width > 0);
    return [ok && now, { from, now }];
  });
}

/** What the cluster knows of a stream; undefined when it is not live. */
async function stream(id) {
  return JSON.parse(await cluster.sluice('streams', '--json')).find((s) => s.id === id);
}

const live = (id, codec) => until(`${id} is live`, async () => {
  const s = await stream(id);
  return [s?.codecs?.includes(codec) && s, s];
});
const gone = (id) => until(`${id} is gone`, async () => {
  const s = await stream(id);
  return [!s || s.state !== 'live', s];
});

describe('clients from npm, unmodified', { timeout: 120_000 }, () => {
  test('one publishes, the other plays', async (t) => {
    const out = await open();
    const took = await call(out, 'publish', whip('npm'), { authkey: 'secret' });
    t.diagnostic(`connected ${took.toFixed(0)} ms after publish`);
    assert.ok(out.answers.includes('PATCH 204'), `the client trickles: ${out.answers}`);
    const view = await open();
    await call(view, 'play', whep('npm'), 'Bearer secret');
    const got = await watches(view);
    assert.deepEqual(got.codecs.sort(), ['audio/opus', 'video/H264']);
    await call(view, 'unplay');
    await call(out, 'unpublish');
    assert.equal(view.answers.at(-1), 'DELETE 200');
    assert.equal(out.answers.at(-1), 'DELETE 200');
    await gone('npm');
    await close(out, view);
  });

  test('without trickle', async () => {
    const out = await open();
    await call(out, 'publish', whip('whole'), { noTrickleIce: true, authkey: 'secret' });
    assert.ok(!out.answers.some((a) => a.startsWith('PATCH')), `${out.answers}`);
    const view = await open();
    await call(view, 'play', whep('whole'));
    await watches(view);
    await call(view, 'unplay');
    await call(out, 'unpublish');
    await close(out, view);
  });

  test('sound alone reaches a player that asks for a picture too', async () => {
    const out = await open();
    await call(out, 'publish', whip('sound'), { kinds: { video: false }, noTrickleIce: true, authkey: 'secret' });
    await live('sound', 'opus');
    const view = await open();
    await call(view, 'play', whep('sound'));
    await watches(view, { frames: 0 });
    await call(view, 'unplay');
    await call(out, 'unpublish');
    await close(out, view);
  });

  test('a publisher of three layers sends all of them', async () => {
    const out = await open();
    await call(out, 'publishPlain', whip('layers'), [{ rid: 'h' }, { rid: 'm', scaleResolutionDownBy: 2 }, { rid: 'l', scaleResolutionDownBy: 4 }]);
    const view = await open();
    await call(view, 'play', whep('layers'));
    await watches(view, { frames: 30 });
    await until('all of them are sent', async () => { const { layers } = await call(out, 'path'); return [layers === 3, layers]; }, { within: 30_000 });
    await call(view, 'unplay');
    await close(out, view);
  });

  test('a publisher restarts ICE and its viewer sees nothing of it', async () => {
    const out = await open();
    await call(out, 'publishPlain', whip('restart'));
    const view = await open();
    await call(view, 'play', whep('restart'));
    await watches(view);
    const before = await call(out, 'path');
    const restarted = await call(out, 'restart');
    assert.equal(restarted.status, 200);
    assert.notEqual(restarted.etag[0], restarted.etag[1], 'the restart has an entity tag of its own');
    assert.ok(restarted.candidates > 0, 'the restart names the server\'s candidates');
    await until('the new path is in use', async () => {
      const now = await call(out, 'path');
      return [now.ufrag !== before.ufrag && ['connected', 'completed'].includes(now.state) && now.bytes > before.bytes, { before, now }];
    });
    await watches(view, { frames: 30 });
    await call(view, 'unplay');
    await close(out, view);
  });

  test('an offline stream is a clear answer to a page of another origin', async () => {
    const page = await open();
    const got = await page.evaluate(async (url) => {
      const r = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: 'v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n' });
      return { status: r.status, after: r.headers.get('Retry-After'), code: (await r.json()).code };
    }, whep('nobody'));
    assert.deepEqual(got, { status: 409, after: '2', code: 'stream_offline' });
    await page.context().close();
  });
});

/** GStreamer's client: it says what it does, and ends with DELETE when told. */
class Gst {
  said = [];

  constructor(...args) {
    this.child = spawn(python, [script, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.errors = '';
    this.child.stderr.on('data', (b) => { this.errors += b; });
    createInterface({ input: this.child.stdout }).on('line', (l) => this.said.push(JSON.parse(l)));
    this.ended = new Promise((resolve) => { this.child.once('close', resolve).once('error', resolve); });
    Gst.all.push(this);
  }

  static all = [];

  /** Waits for a step that fits. */
  hears(what, fits, within = 15_000) {
    return until(`GStreamer: ${what}`, async () => {
      const trouble = this.said.find((s) => s.event === 'error');
      assert.ok(!trouble, `GStreamer: ${trouble?.message} ${this.errors}`);
      return [this.said.find(fits), { said: this.said.slice(-3).map((s) => JSON.stringify(s).slice(0, 200)), errors: this.errors.slice(-500) }];
    }, { within });
  }

  connected() { return this.hears('connected', (s) => s.event === 'state' && s.state === 'connected'); }

  /** Ends it and looks at what it said to the server. */
  async end() {
    this.child.stdin.end();
    assert.equal(await this.ended, 0, `GStreamer's client failed: ${this.errors}\n${JSON.stringify(this.said.filter((s) => s.event === 'error'))}`);
    const http = this.said.filter((s) => s.event === 'http');
    assert.deepEqual([http[0].method, http[0].status], ['POST', 201]);
    assert.ok(http.some((h) => h.method === 'PATCH'), 'it trickled');
    assert.deepEqual(http.filter((h) => h.method === 'PATCH' && h.status !== 204), []);
    assert.deepEqual([http.at(-1).method, http.at(-1).status], ['DELETE', 200]);
  }
}

const check = spawnSync(python, [script, 'check'], { encoding: 'utf8' });
const missing = check.error ? 'python3-gi' : check.stdout.trim();
const skip = missing ? `install the Debian packages ${missing}` : false;

describe('GStreamer', { timeout: 120_000, skip }, () => {
  after(() => Gst.all.forEach((g) => g.child.kill('SIGKILL')));

  for (const [name, codec, args] of [
    ['H.264', 'H264', ['--video', 'h264']],
    ['VP8', 'VP8', ['--video', 'vp8']],
    ['H.264 without packetization-mode', 'H264', ['--video', 'h264', '--mode-missing']],
  ]) {
    test(`publishes ${name}; Chromium and GStreamer play it`, async () => {
      const id = `gst-${codec}-${args.length}`;
      const out = new Gst('publish', whip(id), '--token', 'secret', ...args);
      await out.connected();
      await live(id, codec);
      const inn = new Gst('play', whep(id), '--token', 'secret');
      const view = await open();
      await call(view, 'play', whep(id));
      const got = await watches(view);
      assert.deepEqual([got.width, got.height, got.codecs.includes(`video/${codec}`)], [640, 360, true]);
      await inn.hears('a picture', (s) => s.event === 'first' && s.codec === codec && /width=\(int\)640, height=\(int\)360/.test(s.caps));
      await inn.hears('picture and sound', (s) => s.event === 'frames' && s[codec] >= 30 && s.OPUS >= 30);
      await inn.end();
      await out.end();
      await gone(id);
      await close(view);
    });
  }

  test('plays what a browser publishes', async () => {
    const out = await open();
    await call(out, 'publish', whip('from-chromium'), { authkey: 'secret' });
    await live('from-chromium', 'H264');
    const inn = new Gst('play', whep('from-chromium'));
    await inn.hears('picture and sound', (s) => s.event === 'frames' && s.H264 >= 30 && s.OPUS >= 30);
    await inn.end();
    await call(out, 'unpublish');
    await close(out);
  });
});
