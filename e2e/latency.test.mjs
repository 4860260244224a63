// Glass to glass: a clock is drawn on a canvas, published through gateway, origin and edge, and read back from the
// picture of the player's page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launch, openPage, until } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';
import { servePages } from './lib/server.mjs';

// What the median may be, in ms.
const allowed = Number(process.env.E2E_LATENCY_MS ?? 150);

test('glass to glass', { timeout: 90_000 }, async (t) => {
  const browser = await launch();
  t.after(() => browser.close());
  const pages = await servePages();
  t.after(() => pages.stop());
  const cluster = await startCluster();
  t.after(() => cluster.stop());

  const publisher = await openPage(browser, `${pages.url}/clock.html`);
  await publisher.waitForFunction(() => window.publish);
  await publisher.evaluate((url) => window.publish(url), `${cluster.publish}/live/whip/clock`);
  const player = await openPage(browser, `${cluster.play}/live/player.html?id=clock`, { viewport: { width: 800, height: 600 } });
  await until('the picture', () => player.evaluate(() => (document.querySelector('video')?.videoWidth ?? 0) > 0), { within: 15_000 });

  const delays = await player.evaluate((n) => new Promise((resolve) => {
    const video = document.querySelector('video');
    const canvas = document.createElement('canvas');
    const ink = canvas.getContext('2d', { willReadFrequently: true });
    const seen = [];
    const read = () => {
      const now = Date.now();
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      ink.drawImage(video, 0, 0);
      const scale = video.videoWidth / 640;
      let shown = 0;
      for (let bit = 0; bit < 24; bit += 1) {
        const x = (32 + (bit % 12) * 48 + 24) * scale;
        const y = (96 + Math.floor(bit / 12) * 72 + 24) * scale;
        if (ink.getImageData(Math.round(x), Math.round(y), 1, 1).data[0] > 127) {
          shown += 2 ** bit;
        }
      }
      seen.push((now % 2 ** 24) - shown);
      if (seen.length < n) {
        video.requestVideoFrameCallback(read);
      } else {
        resolve(seen);
      }
    };
    video.requestVideoFrameCallback(read);
  }), 240);

  const late = delays.slice(90).filter((d) => d >= 0 && d < 10_000).sort((a, b) => a - b); // after the jitter buffer has settled
  assert.ok(late.length > 120, `only ${late.length} of 150 clocks could be read`);
  const p = (q) => late[Math.floor(q * (late.length - 1))];
  t.diagnostic(`glass to glass: p50 ${p(0.5)} ms, p95 ${p(0.95)} ms, max ${p(1)} ms`);
  assert.ok(p(0.5) <= allowed, `p50 is ${p(0.5)} ms, more than ${allowed} ms`);
});
