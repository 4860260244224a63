// The unmodified SDK, in Chromium, against the real cluster: it publishes through the publish port and
// plays through the play port.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { launch, openPage, screenshot, until } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';
import { servePages } from './lib/server.mjs';

const rounds = Number(process.env.E2E_ROUNDS ?? 1); // how often each edge goes; more to measure

let cluster;
let pages;
let browser;

before(async () => {
  browser = await launch();
  pages = await servePages();
  cluster = await startCluster();
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await pages?.stop();
  await cluster?.stop();
}, { timeout: 30_000 });

const socketURL = (base, app = 'live') => `${base.replace('https', 'wss')}/${app}/websocket`;

/** A page with an adaptor that is connected. */
async function adaptor(options = {}) {
  const page = await openPage(browser, `${pages.url}/sdk.html`);
  await page.waitForFunction(() => window.sdk !== undefined);
  await page.evaluate((o) => window.sdk.open(o), options);
  return page;
}

const publisher = (options = {}) => adaptor({ url: socketURL(cluster.publish, options.app), ...options });
const viewer = (options = {}) => adaptor({ url: socketURL(cluster.play, options.app), playOnly: true, ...options });

/** Waits for a callback of the SDK, the one after the first `skip`. */
function hears(page, name, { skip = 0, within = 10_000 } = {}) {
  return until(`the SDK's callback ${name}`, async () => {
    const heard = await page.evaluate(() => window.sdk.heard.filter((h) => h.name !== 'pong'));
    return [heard.filter((h) => h.name === name)[skip], heard.map((h) => h.name)];
  }, { within });
}

const count = (page, name) => page.evaluate((n) => window.sdk.heard.filter((h) => h.name === n).length, name);
const call = (page, method, ...args) => page.evaluate(([m, a]) => { window.sdk.adaptor[m](...a); }, [method, args]);
const commands = (page, name) => page.evaluate((n) => window.sdk.sent.filter((c) => c === n).length, name);

/** Waits until more video has been decoded and shown, and sound has come. */
async function watches(page, id, { frames = 15, within = 10_000 } = {}) {
  const from = await page.evaluate((i) => window.sdk.watched(i), id);
  return until(`${frames} more frames of ${id}`, async () => {
    const now = await page.evaluate((i) => window.sdk.watched(i), id);
    // A new peer connection counts from zero.
    const before = now.framesDecoded < from.framesDecoded ? { framesDecoded: 0, currentTime: -1 } : from;
    return [now.framesDecoded >= before.framesDecoded + frames && now.currentTime > before.currentTime && now.audioPackets > 0 && now, { from, now }];
  }, { within });
}

async function publish(page, id) {
  await call(page, 'publish', id);
  await hears(page, 'publish_started');
}

async function close(...list) {
  for (const page of list) {
    assert.deepEqual(page.problems, [], 'errors of scripts in the page');
    await page.context().close();
  }
}

describe('one publisher, one viewer', () => {
  let pub;
  let view;
  before(async () => {
    pub = await publisher();
    await publish(pub, 'stream1');
    view = await viewer();
    await call(view, 'play', 'stream1');
    await hears(view, 'play_started');
  });
  after(() => close(pub, view));

  test('video and sound arrive and are shown', async () => {
    const got = await watches(view, 'stream1');
    assert.ok(got.width >= 320, `the picture is ${got.width} wide`);
    await screenshot(view, 'sdk-player');
  });

  test('text goes both ways over the data channel', async () => {
    await hears(pub, 'data_channel_opened');
    await hears(view, 'data_channel_opened');
    await call(pub, 'sendData', 'stream1', 'hello, viewer');
    await until('the viewer has the text', () => view.evaluate(() => window.sdk.received.includes('hello, viewer')));
    await call(view, 'sendData', 'stream1', 'hello, publisher');
    await until('the publisher has the text', () => pub.evaluate(() => window.sdk.received.includes('hello, publisher')));
  });

  for (const [name, from, to, size] of [['to the viewer', () => pub, () => view, 100_000], ['to the publisher', () => view, () => pub, 50_001]]) {
    test(`${size} bytes go ${name}`, async () => {
      const want = createHash('sha256').update(Uint8Array.from({ length: size }, (_, i) => i % 251)).digest('hex');
      assert.equal(await from().evaluate((n) => window.sdk.sendBinary('stream1', n), size), want);
      await until('the bytes are there', async () => {
        const received = await to().evaluate(() => window.sdk.received.filter((r) => typeof r === 'object'));
        return [received.some((r) => r.length === size && r.sum === want), received];
      });
    });
  }

  test('questions about the stream have true answers', async () => {
    await until('the figures of the stream', async () => { // an edge measures for a second
      const skip = await count(view, 'streamInformation');
      await call(view, 'getStreamInfo', 'stream1');
      const { data } = await hears(view, 'streamInformation', { skip });
      const [info] = data.streamInfo;
      return [['H264', 'VP8'].includes(info.videoCodec) && info.streamWidth > 0 && info.streamHeight > 0 && info.videoBitrate > 10_000 && info.audioBitrate > 1000, data];
    });
    await call(view, 'getBroadcastObject', 'stream1');
    const object = JSON.parse((await hears(view, 'broadcastObject')).data.broadcast);
    assert.equal(object.streamId, 'stream1');
    assert.equal(object.status, 'broadcasting');
    assert.match(object.originAdress, /^origin-/);
    assert.ok(Math.abs(Date.now() - object.startTime) < 60_000, `started at ${object.startTime}`);
  });

  test('the watchdog finds nothing to do for ten seconds', async () => {
    const before = await Promise.all([commands(pub, 'publish'), commands(view, 'play')]);
    const start = Date.now();
    await until('ten seconds', () => Date.now() - start > 10_000, { within: 12_000 });
    assert.deepEqual(await Promise.all([commands(pub, 'publish'), commands(view, 'play')]), before);
    for (const page of [pub, view]) {
      assert.equal(await page.evaluate(() => window.sdk.heard.filter((h) => h.kind === 'error').length), 0);
      assert.ok(await count(page, 'pong') >= 3, 'pings are answered');
    }
    await watches(view, 'stream1');
  });

  test('a publisher that stops and publishes again has its stream back, and its viewer sees it', async () => {
    const skip = await count(pub, 'publish_started');
    await call(pub, 'stop', 'stream1');
    await hears(pub, 'publish_finished');
    await call(pub, 'publish', 'stream1');
    await hears(pub, 'publish_started', { skip });
    await watches(view, 'stream1');
    assert.equal(await count(view, 'play_finished'), 0, 'the viewer noticed');
    assert.equal(await count(pub, 'streamIdInUse'), 0);
  });

  test('a publisher whose socket was killed comes back by itself without streamIdInUse', async () => {
    const skip = await count(pub, 'publish_started');
    await pub.evaluate(() => window.sdk.sockets.at(-1).close());
    await hears(pub, 'closed');
    await hears(pub, 'publish_started', { skip, within: 15_000 });
    await watches(view, 'stream1');
    assert.equal(await count(view, 'play_finished'), 0, 'the viewer noticed');
    assert.equal(await count(pub, 'streamIdInUse'), 0);
  });

  test('a viewer whose socket was killed comes back by itself', async () => {
    const skip = await count(view, 'play_started');
    await view.evaluate(() => window.sdk.sockets.at(-1).close());
    await hears(view, 'play_started', { skip, within: 15_000 });
    await watches(view, 'stream1');
  });

  test('somebody else is told that the stream is in use', async () => {
    const thief = await publisher();
    await call(thief, 'publish', 'stream1');
    await hears(thief, 'streamIdInUse');
    await watches(view, 'stream1');
    await close(thief);
  });

  test('the end is told', async () => {
    const skip = await count(pub, 'publish_finished');
    await call(pub, 'stop', 'stream1');
    await hears(pub, 'publish_finished', { skip });
    await hears(view, 'play_finished', { within: 15_000 });
  });
});

test('a waiting viewer is told when the stream starts, and plays', { timeout: 60_000 }, async () => {
  const view = await viewer({ follow: true });
  await call(view, 'play', 'later');
  const { data } = await hears(view, 'no_stream_exist');
  assert.equal(data.error_code, '404');
  assert.equal(data.information, 'stream_not_exist_or_not_streaming');
  await until('the watchdog asks again', async () => await commands(view, 'play') >= 2);
  const pub = await publisher();
  await publish(pub, 'later');
  await hears(view, 'streaming_started', { within: 3000 });
  await hears(view, 'play_started');
  await watches(view, 'later');
  await close(pub, view);
});

test('play({…}) as an object, with tracks looked up in idMapping', { timeout: 60_000 }, async () => {
  const pub = await publisher({ app: 'WebRTCAppEE' });
  await publish(pub, 'object.style_1');
  const view = await viewer({ app: 'WebRTCAppEE', element: false }); // no element: the SDK reads idMapping
  await call(view, 'play', { streamId: 'object.style_1', token: '' });
  await hears(view, 'play_started');
  const first = await hears(view, 'newTrackAvailable');
  const second = await hears(view, 'newTrackAvailable', { skip: 1 });
  assert.deepEqual([first, second].map((t) => t.data.trackId).sort(), ['ARDAMSaobject.style_1', 'ARDAMSvobject.style_1']);
  for (const t of [first, second]) {
    assert.equal(t.data.id, t.data.trackId, 'the track of the picture has the same id');
  }
  await watches(view, 'object.style_1');
  await hears(view, 'data_channel_opened');
  await call(view, 'sendData', 'object.style_1', 'from the second channel');
  await until('the publisher has the text', () => pub.evaluate(() => window.sdk.received.includes('from the second channel')));
  await call(pub, 'sendData', 'object.style_1', 'back');
  await until('the viewer has the text', () => view.evaluate(() => window.sdk.received.includes('back')));
  assert.equal(await view.evaluate(() => window.sdk.received.filter((r) => r === 'back').length), 1, 'once, not on both channels');
  await close(pub, view);
});

test('one socket publishes one stream and plays another', { timeout: 60_000 }, async () => {
  const other = await publisher();
  await publish(other, 'theirs');
  const both = await publisher();
  await publish(both, 'mine');
  await call(both, 'play', 'theirs');
  await hears(both, 'play_started');
  await until('frames of the other', async () => {
    const now = await both.evaluate(() => window.sdk.watched('theirs'));
    return [now.framesDecoded > 10, now];
  });
  assert.equal(await both.evaluate(() => window.sdk.sockets.length), 1);
  await close(other, both);
});

describe('nodes come and go', () => {
  let pub;
  let view;
  before(async () => {
    pub = await publisher();
    await publish(pub, 'moving');
    view = await viewer();
    await call(view, 'play', 'moving');
    await hears(view, 'play_started');
    await watches(view, 'moving');
  });
  after(() => close(pub, view));

  const lives = ({ pid }) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };

  /** The edge that serves the viewer, when there is another one for it to go to. What is listed is a second old. */
  const serving = () => until('an edge with the viewer, and another', async () => {
    const nodes = JSON.parse(await cluster.sluice('nodes', '--json'));
    const edges = nodes.filter((n) => n.role === 'edge' && n.state === 'ready' && lives(n));
    const busy = edges.filter((n) => n.viewers > 0);
    return [edges.length > 1 && busy.length === 1 && busy[0], nodes];
  }, { within: 15_000 });

  const ways = [
    // As sluice drain does, but sluice up starts it again.
    { name: 'an edge that is drained', callback: 'server_will_stop', limit: 1500, strike: (pid) => process.kill(pid, 'SIGTERM') },
    { name: 'an edge whose process dies', callback: 'closed', limit: 2500, strike: (pid) => process.kill(pid, 'SIGKILL') },
    // As when its machine is gone: nothing answers, and nothing says that it won't. The gateway is sure after 1.5 s, the SDK waits for 1 s.
    { name: 'an edge that falls silent', callback: 'closed', limit: 4000, strike: (pid) => process.kill(pid, 'SIGSTOP'), finish: (pid) => process.kill(pid, 'SIGKILL') },
  ];
  for (const { name, callback, limit, strike, finish } of ways) {
    test(`${name}: its viewers see another edge's picture within ${limit / 1000} s`, { timeout: 40_000 * rounds }, async (t) => {
      const gaps = [];
      for (let round = 0; round < rounds; round++) {
        const { pid } = await serving();
        const skip = await count(view, 'play_started');
        const skipCallback = await count(view, callback);
        await view.evaluate(() => window.sdk.forgetGap());
        strike(pid);
        await hears(view, callback, { skip: skipCallback, within: 15_000 });
        await hears(view, 'play_started', { skip, within: 15_000 });
        await watches(view, 'moving');
        gaps.push(await view.evaluate(() => window.sdk.gap));
        finish?.(pid);
      }
      t.diagnostic(`the picture stood still for ${gaps.map((g) => g.toFixed(0)).join(', ')} ms`);
      assert.ok(Math.max(...gaps) <= limit, `longer than ${limit} ms`);
    });
  }
});
