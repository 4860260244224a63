// Nodes are drained while people publish and watch in browsers: nobody is sent away, the picture hardly stops.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, openPage, until } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';

let cluster;
let browser;
let publisher;
let viewer;

before(async () => {
  browser = await launch();
  cluster = await startCluster({ origins: 2, edges: 2 });
  publisher = await openPage(browser, `${cluster.publish}/live/?id=moving`);
  await publisher.locator('[data-testid=start]').click();
  await is(publisher, 'live');
  viewer = await openPage(browser, `${cluster.play}/live/player.html?id=moving`);
  await is(viewer, 'live');
  await viewer.evaluate(() => {
    const video = document.querySelector('video');
    window.seen = { frames: 0, gap: 0, states: [] };
    let last = performance.now();
    const look = (now) => {
      window.seen.frames++;
      window.seen.gap = Math.max(window.seen.gap, now - last);
      last = now;
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    new MutationObserver(() => window.seen.states.push(document.body.dataset.state)).observe(document.body, { attributeFilter: ['data-state'] });
  });
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await cluster?.stop();
}, { timeout: 30_000 });

const is = (page, want) => until(`the page is ${want}`, async () => {
  const now = await page.getAttribute('body', 'data-state');
  return [now === want, now];
}, { within: 15_000 });

const nodes = async () => JSON.parse(await cluster.sluice('nodes', '--json'));

for (const [role, limit] of [['edge', 1000], ['origin', 1500]]) {
  test(`a drained ${role} is left without a break`, { timeout: 60_000 }, async (t) => {
    const busy = await until(`an ${role} with the stream`, async () => {
      const all = await nodes();
      return [all.find((n) => n.role === role && n.state === 'ready' && n.streams > 0 && (role === 'origin' || n.viewers > 0)), all];
    });
    await viewer.evaluate(() => Object.assign(window.seen, { frames: 0, gap: 0, states: [] }));
    assert.match(await cluster.sluice('drain', busy.id), new RegExp(`${busy.id} is empty and has left`));
    await until('30 frames more', async () => {
      const { frames } = await viewer.evaluate(() => window.seen);
      return [frames > 30, frames];
    });
    const seen = await viewer.evaluate(() => window.seen);
    t.diagnostic(`the longest gap was ${seen.gap.toFixed(0)} ms`);
    assert.ok(seen.gap < limit, `nothing was shown for ${seen.gap.toFixed(0)} ms`);
    assert.deepEqual(seen.states.filter((s) => s !== 'live'), []);
    assert.equal(await publisher.getAttribute('body', 'data-state'), 'live');
    assert.ok(!(await nodes()).some((n) => n.id === busy.id));
  });
}
