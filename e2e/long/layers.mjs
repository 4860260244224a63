// Pictures that are published in several renditions: what arrives, what viewers get of it, and what is not sent because nobody watches it. It takes some minutes; `make e2e-long` runs it.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { launch, openPage, until } from '../lib/browser.mjs';
import { startCluster } from '../lib/cluster.mjs';
import { servePages } from '../lib/server.mjs';

let cluster;
let pages;
let browser;
let bundle;

before(async () => {
  const built = await build({ entryPoints: [fileURLToPath(new URL('../pages/layers.mjs', import.meta.url))], bundle: true, write: false, format: 'esm', logLevel: 'error' });
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

async function open() {
  const page = await openPage(browser, `${pages.url}/clients.html`);
  await page.addScriptTag({ content: bundle, type: 'module' });
  await page.waitForFunction(() => window.layers);
  return page;
}

async function close(...list) {
  for (const page of list) {
    assert.deepEqual(page.problems, [], 'errors of scripts in the page');
    await page.context().close();
  }
}

const call = (page, name, ...args) => page.evaluate(([n, a]) => window.layers[n](...a), [name, args]);
const socket = (base) => `${base.replace('https', 'wss')}/live/websocket`;
const three = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 200_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 600_000 },
  { rid: 'f', maxBitrate: 1_500_000 },
];
const small = { width: 640, height: 360 }; // for machines that are slow; Chromium sends two renditions of it at most

/** Waits until renditions flow, and no others. sent(page) tells what was sent. */
async function flows(page, rids, { within = 60_000, sent = (p) => call(p, 'sent') } = {}) {
  let last = await sent(page);
  return until(`only ${rids} is sent`, async () => {
    const now = await sent(page);
    const grew = Object.keys(now).filter((r) => now[r].bytes > (last[r]?.bytes ?? 0)).sort();
    const seen = { grew, now };
    last = now;
    return [grew.join() === [...rids].sort().join() && now, seen];
  }, { within, every: 1000 });
}

/** Watches a stream in a page of its own, at the height that is wanted. */
async function watch(id, height) {
  const page = await open();
  await call(page, 'play', socket(cluster.play), id);
  if (height) {
    await pin(page, id, height);
  }
  return page;
}

/** The viewer wants one rendition; the server knows it when it knows how large it is. */
const pin = (page, id, height) => until(`${height} lines can be had, and are shown`, async () => {
  await call(page, 'say', { command: 'forceStreamQuality', streamId: id, streamHeight: height });
  const s = await call(page, 'shown');
  return [s?.height === height && s, s];
}, { within: 40_000, every: 500 });

/** Waits until so many more pictures were shown. */
async function more(page, frames, within = 30_000) {
  const from = await call(page, 'shown');
  return until(`${frames} more pictures`, async () => {
    const now = await call(page, 'shown');
    return [now.frames >= from.frames + frames && now, { from, now }];
  }, { within });
}

describe('simulcast', { timeout: 240_000 }, () => {
  for (const [codec, how] of [['H264', 'WHIP'], ['VP8', 'the WebSocket']]) {
    test(`${codec} by ${how}: all three arrive, and a viewer gets each without a freeze`, async (t) => {
      const id = `three-${codec}`;
      const out = await open();
      if (how === 'WHIP') await call(out, 'whip', `${cluster.publish}/live/whip/${id}`, { codec, encodings: three });
      else await call(out, 'socket', socket(cluster.publish), id, { codec, encodings: three });
      t.diagnostic(JSON.stringify(await flows(out, ['q', 'h', 'f'])));
      const view = await watch(id);
      await until('a picture', () => call(view, 'shown'));
      for (const height of [180, 720, 360, 720, 180]) {
        const before = await call(view, 'shown');
        const got = await pin(view, id, height);
        await more(view, 20);
        const after = await call(view, 'shown');
        t.diagnostic(`${height} after ${((got.at - before.at) / 1000).toFixed(1)} s; freezes ${after.freezes - before.freezes}, ${(after.frozen - before.frozen).toFixed(2)} s; PLIs ${after.plis - before.plis}`);
      }
      const end = await call(view, 'shown');
      assert.equal(end.codec, `video/${codec}`);
      assert.ok(end.plis <= 5, `the viewer could not decode: ${end.plis} PLIs`); // how long it is frozen is a matter of the machine too
      await close(view, out);
    });
  }

  test('a rendition that its publisher stops and sends again', async (t) => {
    const id = 'stops';
    const out = await open();
    await call(out, 'whip', `${cluster.publish}/live/whip/${id}`, { codec: 'VP8', encodings: three });
    await flows(out, ['q', 'h', 'f']);
    const view = await watch(id, 720);
    await call(view, 'say', { command: 'forceStreamQuality', streamId: id, streamHeight: 0 });
    await more(view, 20);
    const before = await call(view, 'shown');
    await call(out, 'send', ['q', 'h']);
    await until('a smaller picture', async () => {
      const s = await call(view, 'shown');
      return [s.height < 720 && s.frames > before.frames + 20, s];
    }, { within: 30_000 });
    const less = await more(view, 40);
    await call(out, 'send', ['q', 'h', 'f']);
    const again = await until('the large picture again', async () => {
      const s = await call(view, 'shown');
      return [s.height === 720 && s, s];
    }, { within: 60_000 });
    await more(view, 20);
    t.diagnostic(JSON.stringify({ before, less, again }));
    assert.ok(again.plis - before.plis <= 4, `the viewer could not decode: ${again.plis - before.plis} PLIs`);
    await close(view, out);
  });
});

describe('our publish page', { timeout: 120_000 }, () => {
  /** What the page has sent, by rendition. */
  const sent = (page) => page.evaluate(async () => {
    const by = {};
    for (const pc of window.sessions) {
      for (const s of (await pc.getStats()).values()) {
        if (s.type === 'outbound-rtp' && s.kind === 'video') by[s.rid ?? ''] = { bytes: s.bytesSent, keys: s.keyFramesEncoded, height: s.frameHeight };
      }
    }
    return by;
  });

  test('sends what is watched', async (t) => {
    const id = 'page';
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
    await page.goto(`${cluster.publish}/live/?id=${id}`);
    await page.getByTestId('start').click();
    await until('a camera of 720 lines is to be sent in three renditions', () => page.getByTestId('several').isChecked());
    await flows(page, ['q', 'h', 'f'], { sent });
    await flows(page, ['f'], { sent });

    const began = Date.now();
    const view = await watch(id, 180);
    t.diagnostic(`180 lines ${Date.now() - began} ms after the page was opened`);
    await more(view, 20);
    await flows(page, ['q'], { sent });
    const asked = Date.now();
    await pin(view, id, 720);
    t.diagnostic(`720 lines again after ${Date.now() - asked} ms`);
    await more(view, 20);
    await close(view, page);
  });
});

describe('SVC', { timeout: 400_000 }, () => {
  for (const [codec, mode, heights] of [
    ['VP9', 'L3T3_KEY', [180, 720, 360, 720]], ['VP9', 'L3T3', [180, 720, 360]], ['VP9', 'L2T2_KEY', [180, 360, 180]], ['VP9', 'L1T3', [360]],
    ['AV1', 'L1T3', [360]], ['AV1', 'L2T2_KEY', [180, 360, 180]], ['AV1', 'L3T3_KEY', [180, 720, 360]], ['AV1', 'L3T3', [180, 720]],
  ]) {
    test(`${codec} ${mode}: a viewer gets each size`, async (t) => {
      const id = `svc-${codec}-${mode}`;
      const out = await open();
      await call(out, 'whip', `${cluster.publish}/live/whip/${id}`, { codec, descriptor: true, encodings: [{ scalabilityMode: mode, maxBitrate: 1_500_000 }], ...(mode.startsWith('L3') ? {} : small) }); // Chromium has no three layers of less
      await until('the publisher sends in layers', async () => {
        const s = Object.values(await call(out, 'sent'))[0];
        return [s?.mode === mode && s.frames > 20 && s, s];
      }, { within: 60_000 });
      const view = await watch(id);
      await until('a picture', () => call(view, 'shown'));
      for (const height of heights) {
        const before = await call(view, 'shown');
        const got = await pin(view, id, height);
        await more(view, 20);
        const after = await call(view, 'shown');
        t.diagnostic(`${height} after ${((got.at - before.at) / 1000).toFixed(1)} s; ${((after.frames - got.frames) / (after.at - got.at) * 1000).toFixed(1)} fps, ${Math.round((after.bytes - got.bytes) * 8 / (after.at - got.at))} kbit/s; freezes ${after.freezes - before.freezes}, ${(after.frozen - before.frozen).toFixed(2)} s; PLIs ${after.plis - before.plis}`);
      }
      const end = await call(view, 'shown');
      assert.equal(end.codec, `video/${codec}`);
      assert.ok(end.plis <= 5, `the viewer could not decode: ${end.plis} PLIs`);
      await close(view, out);
    });
  }
});
