// A stream with renditions in real browsers: the player's menu, the unmodified SDK's commands, and pages that nobody sees.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, openPage, screenshot, until } from './lib/browser.mjs';
import { startNode } from './lib/node.mjs';
import { servePages } from './lib/server.mjs';

const binary = process.env.E2E_BINARY ?? fileURLToPath(new URL('../bin/sluice', import.meta.url));

let node;
let pages;
let browser;
let publisher;

/** Publishes a moving picture with sound until it is killed. */
function publish(id) {
  const child = spawn(binary, ['publish', 'test-pattern', `${node.url}/live/whip/${id}`, '--width=960', '--height=540', '--fps=25', '--bitrate=1000000'], { stdio: 'ignore' });
  process.once('exit', () => child.kill('SIGKILL'));
  return child;
}

before(async () => {
  [browser, pages, node] = await Promise.all([launch(), servePages(), startNode('--media', '127.0.0.1:0', '--ladder-rungs', '360p:500k,180p:200k', '--ladder-preset', 'ultrafast')]);
  publisher = publish('ladder');
}, { timeout: 60_000 });

after(async () => {
  publisher?.kill('SIGINT');
  await browser?.close();
  await pages?.stop();
  await node?.stop();
}, { timeout: 30_000 });

const looks = {
  light: { colorScheme: 'light', viewport: { width: 1280, height: 860 } },
  dark: { colorScheme: 'dark', viewport: { width: 1280, height: 860 } },
  phone: { colorScheme: 'light', viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
};
const part = (page, id) => page.locator(`[data-testid=${id}]`);

/** Waits until the picture has a height, and moves. */
function shows(page, height, within = 15_000) {
  let from;
  return until(`a picture of ${height} lines`, async () => {
    const now = await page.evaluate(() => {
      const v = document.querySelector('video:not(#local)');
      return { height: v.videoHeight, frames: v.getVideoPlaybackQuality().totalVideoFrames };
    });
    if (now.height !== height) from = undefined;
    else from ??= now.frames;
    return [from !== undefined && now.frames >= from + 5, now];
  }, { within });
}

/** Opens the player on the stream, when that has all its renditions. */
async function player(query = '', look = looks.light, file = 'player.html') {
  const page = await openPage(browser, `${node.url}/live/${file}?id=ladder${query}`, look);
  await part(page, 'quality').waitFor({ timeout: 20_000 });
  return page;
}

/** Has the keys and the menu as a screen reader has them. */
const menu = (page) => page.evaluate(() => [...document.querySelectorAll('[role=menuitemradio]')].map((i) => `${i.getAttribute('aria-checked') === 'true' ? '*' : ''}${i.querySelector('[data-part=name]').textContent}`));

async function close(...list) {
  for (const page of list) {
    assert.deepEqual(page.problems, [], 'errors of scripts in the page');
    await page.context().close();
  }
}

describe('the menu of the player', { timeout: 90_000 }, () => {
  let page;
  before(async () => { page = await player(); });
  after(() => close(page));

  test('all renditions are there, and the best one plays', async () => {
    await until('three renditions', async () => [(await menu(page)).length === 4, await menu(page)]);
    await shows(page, 540);
    await until('what plays', async () => {
      const text = await part(page, 'quality').getAttribute('aria-label');
      return [text === 'Quality: Auto (540p)', text];
    });
    assert.deepEqual(await menu(page), ['*Auto (540p)', '540p', '360p', '180p']);
  });

  test('by pointer', async () => {
    await part(page, 'quality').click();
    await screenshot(page, 'quality-light');
    await part(page, 'quality-menu').getByText('180p').click();
    await shows(page, 180);
    assert.equal(await part(page, 'quality').getAttribute('aria-label'), 'Quality: 180p');
    assert.equal(await part(page, 'quality-menu').isHidden(), true);
  });

  test('by key', async () => {
    await page.keyboard.press('q');
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-checked')), 'true', 'the chosen one has the focus');
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('Enter');
    await shows(page, 360);
    await part(page, 'quality').press('ArrowDown');
    await page.keyboard.press('Home');
    await page.keyboard.press('Space');
    await shows(page, 540);
    assert.deepEqual(await menu(page), ['*Auto (540p)', '540p', '360p', '180p']);
    await page.keyboard.press('q');
    await page.keyboard.press('Escape');
    assert.equal(await part(page, 'quality').getAttribute('aria-expanded'), 'false');
    assert.equal(await page.evaluate(() => document.activeElement.dataset.testid), 'quality');
  });

  test('what was chosen holds when the session is another one', async () => {
    await part(page, 'quality').click();
    await part(page, 'quality-menu').getByText('360p').click();
    await shows(page, 360);
    await page.evaluate(() => dispatchEvent(new Event('pagehide')));
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })));
    await shows(page, 360);
    assert.deepEqual(await menu(page), ['Auto', '540p', '*360p', '180p']);
  });

  for (const [name, look, file] of [['dark', looks.dark, 'player.html'], ['phone', looks.phone, 'player.html'], ['embed', { ...looks.dark, viewport: { width: 400, height: 225 } }, 'play.html']]) {
    test(`it fits: ${name}`, async () => {
      const other = await player('', look, file);
      await until('three renditions', async () => [(await menu(other)).length === 4, await menu(other)]);
      await part(other, 'quality').click();
      await screenshot(other, `quality-${name}`);
      const { view, stage, box } = await other.evaluate(() => {
        const of = (q) => { const r = document.querySelector(q).getBoundingClientRect(); return { x: r.x, y: r.y, right: r.right, bottom: r.bottom }; };
        return { view: { right: innerWidth, bottom: innerHeight }, stage: of('.stage'), box: of('[data-testid=quality-menu]') };
      });
      assert.ok(box.x >= 0 && box.right <= view.right && box.y >= stage.y && box.bottom <= stage.bottom, `the menu ${JSON.stringify(box)} is not in the picture ${JSON.stringify(stage)}`);
      await close(other);
    });
  }
});

/** What a page's peer connection has received of a kind. The page keeps its connections in window.connections. */
const received = (page, kind) => page.evaluate(async (k) => {
  const out = { packetsReceived: 0, framesDecoded: 0, keyFramesDecoded: 0, concealedSamples: 0, totalSamplesReceived: 0 };
  for (const pc of window.connections) {
    for (const s of (await pc.getStats()).values()) {
      if (s.type === 'inbound-rtp' && s.kind === k) for (const name of Object.keys(out)) out[name] += s[name] ?? 0;
    }
  }
  return out;
}, kind);

/** Lets received see the connections of pages that are opened in a context. */
const remember = () => {
  window.connections = [];
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(...args) {
      super(...args);
      window.connections.push(this);
    }
  };
};

/** Waits until as good as nothing of a kind has come for a second. */
function silent(page, kind) {
  let from;
  let at;
  return until(`no more ${kind}`, async () => {
    const { packetsReceived: now } = await received(page, kind);
    if (from === undefined || now > from + 3) [from, at] = [now, Date.now()];
    return [Date.now() - at > 1000, { from, now }];
  });
}

/** Waits until more packets of a kind have come. */
async function flows(page, kind, n = 15) {
  const { packetsReceived: from } = await received(page, kind);
  await until(`more ${kind}`, async () => {
    const { packetsReceived: now } = await received(page, kind);
    return [now >= from + n, { from, now }];
  });
}

test('the picture of a page that nobody sees is not sent, the sound is', { timeout: 60_000 }, async () => {
  const page = await openPage(browser, 'about:blank', looks.light);
  await page.addInitScript(remember);
  await page.addInitScript(() => {
    let hidden = false;
    Object.defineProperty(document, 'hidden', { get: () => hidden });
    window.hide = (h) => { hidden = h; document.dispatchEvent(new Event('visibilitychange')); };
  });
  await page.goto(`${node.url}/live/play.html?id=ladder&pauseHidden=true`);
  await shows(page, 540);
  await page.evaluate(() => window.hide(true));
  await silent(page, 'video');
  await flows(page, 'audio');
  await until('longer than a stall takes to be seen', async () => { // it is none: the session stays
    page.still ??= Date.now();
    return Date.now() - page.still > 4000;
  });
  assert.equal(await page.getAttribute('body', 'data-state'), 'live');
  const answer = await page.evaluate(() => window.connections[0].remoteDescription.sdp);
  assert.match(answer, /a=extmap:\d+ http:\/\/www.webrtc.org\/experiments\/rtp-hdrext\/playout-delay/);
  const before = await received(page, 'video');
  const begun = Date.now();
  await page.evaluate(() => window.hide(false));
  await until('the picture goes on', async () => {
    const now = await received(page, 'video');
    return [now.framesDecoded > before.framesDecoded, now];
  });
  const took = Date.now() - begun;
  await shows(page, 540);
  assert.ok(took < 1500, `it took ${took} ms`); // a key frame comes every 4 s, this one is cached
  assert.equal(await page.evaluate(() => window.connections.length), 1);
  await close(page);
});

describe('the unmodified SDK', { timeout: 90_000 }, () => {
  let page;
  const call = (method, ...args) => page.evaluate(([m, a]) => { window.sdk.adaptor[m](...a); }, [method, args]);
  const hears = (name, skip = 0) => until(`the SDK's callback ${name}`, async () => {
    const heard = await page.evaluate(() => window.sdk.heard.filter((h) => h.name !== 'pong'));
    return [heard.filter((h) => h.name === name)[skip], heard.map((h) => h.name)];
  });
  const count = (name) => page.evaluate((n) => window.sdk.heard.filter((h) => h.name === n).length, name);

  before(async () => {
    page = await openPage(browser, 'about:blank');
    await page.addInitScript(remember);
    await page.goto(`${pages.url}/sdk.html`);
    await page.waitForFunction(() => window.sdk !== undefined);
    await page.evaluate((url) => window.sdk.open({ url, playOnly: true }), `${node.url.replace('http', 'ws')}/live/websocket`);
  });
  after(() => close(page));

  test('getStreamInfo has all renditions', async () => {
    const { data } = await until('three of them', async () => {
      const skip = await count('streamInformation');
      await call('getStreamInfo', 'ladder');
      const heard = await hears('streamInformation', skip);
      return [heard.data.streamInfo.length === 3 && heard, heard.data];
    }, { within: 20_000 });
    assert.deepEqual(data.streamInfo.map((i) => [i.streamWidth, i.streamHeight, i.videoCodec]), [[960, 540, 'H264'], [640, 360, 'H264'], [320, 180, 'H264']]);
    for (const i of data.streamInfo) assert.ok(i.videoBitrate > 100_000 && i.audioBitrate > 5000, JSON.stringify(i));
  });

  test('forceStreamQuality, and what is told of it', async () => {
    await call('play', 'ladder');
    await hears('play_started');
    await shows(page, 540);
    assert.match(await page.evaluate(() => window.connections[0].localDescription.sdp), /transport-cc/, 'it tells arrival times');
    const { data } = await hears('bitrateMeasurement');
    assert.ok(data.targetBitrate > 50_000 && data.videoBitrate > 100_000 && data.audioBitrate > 5000, JSON.stringify(data));
    await call('forceStreamQuality', 'ladder', 180);
    await shows(page, 180);
    const told = await count('resolutionChangeInfo');
    assert.equal((await hears('resolutionChangeInfo', told - 1)).data.streamHeight, 180);
    await call('forceStreamQuality', 'ladder', 'auto');
    await shows(page, 540);
    assert.equal((await hears('resolutionChangeInfo', told)).data.streamHeight, 540);
    await call('forceStreamQuality', 'ladder', 99);
    await hears('no_such_quality');
  });

  test('toggleVideo and toggleAudio', async () => {
    await call('toggleVideo', 'ladder', 'ladder', false);
    await silent(page, 'video');
    await flows(page, 'audio');
    await call('toggleVideo', 'ladder', 'ladder', true);
    await flows(page, 'video');
    await call('toggleAudio', 'ladder', 'ladder', false);
    await silent(page, 'audio');
    await call('toggleAudio', 'ladder', 'ladder', true);
    await flows(page, 'audio');
    await shows(page, 540);
  });
});

test('the publish page sends its sound with redundancy, and viewers hear it without', { timeout: 60_000 }, async () => {
  const out = await openPage(browser, 'about:blank', looks.light);
  await out.addInitScript(remember);
  await out.goto(`${node.url}/live/?id=twice`);
  await part(out, 'start').click();
  await until('redundancy', async () => { // Chromium's stats name the codec inside
    const agreed = await out.evaluate(() => window.connections.flatMap((pc) => pc.getSenders()).find((s) => s.track?.kind === 'audio')?.getParameters().codecs[0]?.mimeType);
    return [agreed === 'audio/red', agreed];
  });
  const view = await openPage(browser, 'about:blank', looks.light);
  await view.addInitScript(remember);
  await view.goto(`${node.url}/live/play.html?id=twice`);
  await until('sound', async () => {
    const now = await received(view, 'audio');
    return [now.totalSamplesReceived > 48_000 && now.concealedSamples < now.totalSamplesReceived / 4, now];
  });
  await close(out, view);
});
