// A browser in networks that let no UDP through, and in those that let only a TURN server through.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launch, openPage, until } from './lib/browser.mjs';
import { startNode } from './lib/node.mjs';

let browser;

before(async () => { browser = await launch(); }, { timeout: 60_000 });
after(async () => { await browser?.close(); });

/** Keeps the page's peer connections, to see which path they take. */
const spy = () => {
  window.connections = [];
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...args) {
      super(...args);
      window.connections.push(this);
    }
  };
};

/** The local candidate of the path that media takes: {protocol, type, relay}. */
const path = (page) => page.evaluate(async () => {
  const pc = window.connections.at(-1);
  const stats = await pc.getStats();
  for (const s of stats.values()) {
    if (s.type === 'transport' && s.selectedCandidatePairId) {
      const pair = stats.get(s.selectedCandidatePairId);
      const local = stats.get(pair.localCandidateId);
      return { protocol: local.protocol, type: local.candidateType, relay: local.relayProtocol };
    }
  }
  return null;
});

/** Opens a page of a node. Its answers, and the servers that they name, may be changed on their way. */
async function open(url, { answer = (sdp) => sdp, link = (header) => header }) {
  const page = await openPage(browser, 'about:blank');
  await page.addInitScript(spy);
  await page.route(/\/(whip|whep)\//, async (route) => {
    if (route.request().method() === 'GET') { // events of a session, which do not end
      await route.continue();
      return;
    }
    const res = await route.fetch();
    const headers = res.headers();
    await route.fulfill({ response: res, headers: { ...headers, ...(headers.link && { link: link(headers.link) }) }, body: answer(await res.text()) });
  });
  await page.goto(url);
  return page;
}

const live = (page) => until('the page is live', async () => {
  const now = await page.getAttribute('body', 'data-state');
  return [now === 'live', { now, ice: await page.evaluate(() => window.connections.map((c) => c.iceConnectionState)) }];
}, { within: 20_000 });

const shows = async (page) => {
  const frames = () => page.evaluate(() => document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0);
  const from = await frames();
  await until('30 more frames in the picture', async () => {
    const now = await frames();
    return [now >= from + 30, { from, now }];
  });
};

/** Publishes and watches, and returns the paths of both. */
async function road(node, change) {
  const out = await open(`${node.url}/live/?id=s`, change);
  await out.locator('[data-testid=start]').click();
  await live(out);
  const inn = await open(`${node.url}/live/player.html?id=s`, change);
  await live(inn);
  await shows(inn);
  const paths = [await path(out), await path(inn)];
  await inn.context().close();
  await out.context().close();
  return paths;
}

describe('networks', { timeout: 120_000 }, () => {
  test('no UDP: over TCP', async () => {
    const node = await startNode('--media', '127.0.0.1:0');
    try {
      const paths = await road(node, { answer: (sdp) => sdp.replace(/a=candidate:.* udp .*\r\n/g, '') });
      for (const p of paths) {
        assert.equal(p?.protocol, 'tcp', JSON.stringify(paths));
      }
    } finally {
      await node.stop();
    }
  });

  for (const transport of ['udp', 'tcp']) {
    test(`nothing but a TURN server: over its ${transport}`, async () => {
      // An address that nobody has: there is no direct path.
      const node = await startNode('--media', '127.0.0.1:0', '--announce', '203.0.113.7', '--turn-listen', '127.0.0.1:0', '--turn-public', '127.0.0.1');
      try {
        const paths = await road(node, { link: (header) => header.split(', ').filter((l) => l.includes(`?transport=${transport}>`)).join(', ') });
        for (const p of paths) {
          assert.deepEqual([p?.type, p?.relay], ['relay', transport], JSON.stringify(paths));
        }
      } finally {
        await node.stop();
      }
    });
  }
});
