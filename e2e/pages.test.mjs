// The publish page and the player, as people use them: through the gateway, from an origin to an edge.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launch, openPage, screenshot, until } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';

let cluster;
let browser;

before(async () => {
  browser = await launch();
  cluster = await startCluster();
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await cluster?.stop();
}, { timeout: 30_000 });

const looks = {
  light: { colorScheme: 'light', viewport: { width: 1280, height: 860 } },
  dark: { colorScheme: 'dark', viewport: { width: 1280, height: 860 } },
  phone: { colorScheme: 'light', viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
};

const part = (page, id) => page.locator(`[data-testid=${id}]`);
const state = (page) => page.getAttribute('body', 'data-state');
const inState = (page, want, within = 15_000) => until(`the page is ${want}`, async () => {
  const now = await state(page);
  return [now === want, { now, says: await part(page, 'state').first().innerText().catch(() => '') }];
}, { within });

/** Opens a page of the product and watches what it asks for. */
async function open(url, options = looks.light) {
  const page = await openPage(browser, 'about:blank', options);
  page.hosts = new Set();
  page.on('request', (r) => { page.hosts.add(new URL(r.url()).host); });
  await page.goto(url);
  return page;
}

/** Goes live and returns the page. */
async function publish(id, { app = 'live', look = looks.light } = {}) {
  const page = await open(`${cluster.publish}/${app}/?id=${id}`, look);
  await part(page, 'start').click();
  await inState(page, 'live');
  return page;
}

const player = (id, { app = 'live', look = looks.light } = {}) => open(`${cluster.play}/${app}/player.html?id=${id}`, look);

/** Waits until n more frames are shown. */
async function shows(page, n = 15, within = 15_000) {
  const frames = () => page.evaluate(() => document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0);
  const from = await frames();
  await until(`${n} more frames in the picture`, async () => {
    const now = await frames();
    return [now >= from + n || (now < from && now >= n), { from, now, state: await state(page) }]; // a new session counts from zero
  }, { within });
}

describe('pages', { timeout: 240_000 }, () => {
  test('publish a camera, watch it', async (t) => {
    const out = await publish('first');
    const began = Date.now();
    const inn = await player('first');
    await inState(inn, 'live');
    await shows(inn, 1);
    t.diagnostic(`picture ${Date.now() - began} ms after the page was asked for`);
    await shows(inn, 30);
    assert.equal(await inn.evaluate(() => document.querySelector('video').muted), true, 'the player begins muted');
    for (const [page, ids] of [[out, ['resolution', 'fps', 'bitrate', 'rtt', 'loss']]]) {
      for (const id of ids) {
        await until(`the figure ${id}`, async () => {
          const text = await part(page, `stat-${id}`).innerText();
          return [/\d/.test(text), text];
        });
      }
    }
    await inn.keyboard.press('i');
    await until('figures in the player', async () => /\d+\s*fps/.test(await part(inn, 'stats').innerText()));
    await inn.keyboard.press('m');
    await until('sound', () => inn.evaluate(() => {
      const v = document.querySelector('video');
      return !v.muted && v.srcObject.getAudioTracks().length === 1;
    }));
    await inn.keyboard.press('Space');
    await until('a pause', () => inn.evaluate(() => document.querySelector('video').paused));
    await inn.keyboard.press('Space');
    await shows(inn);
    for (const page of [out, inn]) {
      assert.deepEqual(page.problems, []);
      for (const host of page.hosts) {
        assert.match(host, /^(localhost:\d+|)$/, `the page asks ${host}`);
      }
    }

    await inn.evaluate(() => {
      window.seen = [];
      new MutationObserver(() => window.seen.push(document.body.dataset.state)).observe(document.body, { attributeFilter: ['data-state'] });
    });
    await part(out, 'stop').click();
    await inState(out, 'idle');
    const stopped = Date.now();
    await inState(inn, 'waiting', 5000);
    t.diagnostic(`the player waits ${Date.now() - stopped} ms after the stop`);
    assert.match(await part(inn, 'notice-title').innerText(), /has ended/);
    assert.deepEqual((await inn.evaluate(() => window.seen)).filter((s) => s === 'live'), [], 'live after the stop');
    await part(out, 'start').click();
    await inState(out, 'live');
    await inState(inn, 'live');
    await shows(inn);
    await out.context().close();
    await inn.context().close();
  });

  test('who comes first waits', async () => {
    const inn = await player('later');
    await inState(inn, 'waiting');
    await screenshot(inn, 'player-waiting');
    const out = await publish('later');
    const began = Date.now();
    await inState(inn, 'live');
    await shows(inn);
    assert.ok(Date.now() - began < 6000, `the waiting player took ${Date.now() - began} ms`);
    await out.context().close();
    await inn.context().close();
  });

  test('a publisher who closes the page is gone at once', async (t) => {
    const out = await publish('left');
    const inn = await player('left');
    await shows(inn);
    await out.goto('about:blank');
    const left = Date.now();
    await inState(inn, 'waiting', 5000);
    t.diagnostic(`the player waits ${Date.now() - left} ms after the page was left`);
    await out.context().close();
    await inn.context().close();
  });

  for (const [what, id] of [['leads elsewhere', '../x'], ['is too long', 'a'.repeat(129)], ['is not ASCII', 'flüsse'], ['is hidden', '.x']]) {
    test(`a name that ${what} is refused when the page opens`, async () => {
      const query = `?id=${encodeURIComponent(id)}`;
      const out = await open(`${cluster.publish}/live/${query}`);
      await until('a message', () => part(out, 'message').isVisible());
      assert.match(await part(out, 'message').innerText(), /name is not allowed.*letters, digits/is);
      assert.ok(await part(out, 'start').isDisabled(), 'Start can be pressed');
      await part(out, 'stream-id').fill('good');
      assert.ok(await part(out, 'start').isEnabled(), 'Start cannot be pressed');
      assert.ok(await part(out, 'message').isHidden(), 'the message stays');
      for (const page of ['player.html', 'play.html']) {
        const inn = await open(`${cluster.play}/live/${page}${query}`);
        await inState(inn, 'error');
        assert.match(await part(inn, 'notice').innerText(), /name is not allowed/i);
        assert.ok(await part(inn, 'retry').isHidden(), 'it offers to try the same name again');
        await inn.context().close();
      }
      await out.context().close();
    });
  }

  for (const width of [1000, 1180, 1240, 1300]) {
    test(`the figures can be read at ${width} pixels`, async () => {
      const out = await publish('tiles', { look: { viewport: { width, height: 760 } } });
      await until('figures', async () => /\d/.test(await part(out, 'stat-rtt').innerText()));
      if (width === 1180) {
        await screenshot(out, 'publish-1180');
      }
      // The widest that they get, not only what they are now.
      const cut = await out.evaluate((widest) => Object.entries(widest).flatMap(([name, text]) => {
        const dd = document.querySelector(`[data-testid=stat-${name}]`);
        dd.textContent = text;
        return dd.scrollWidth > dd.clientWidth ? [`${name}: ${dd.scrollWidth} in ${dd.clientWidth}`] : [];
      }), { resolution: '1920\u200a×\u200a1080', fps: '60 fps', bitrate: '12.34 Mbit/s', rtt: '1234 ms', loss: '12.3 %', codec: 'H264' });
      assert.deepEqual(cut, []);
      await part(out, 'stop').click();
      await inState(out, 'idle');
      await out.context().close();
    });
  }

  test('a second publisher is told', async () => {
    const out = await publish('taken');
    const second = await open(`${cluster.publish}/live/?id=taken`);
    await part(second, 'start').click();
    await inState(second, 'error');
    assert.match(await part(second, 'message').innerText(), /already|somebody|else|in use/i);
    await screenshot(second, 'publish-in-use');
    await out.context().close();
    await second.context().close();
  });

  test('the other application', async () => {
    const out = await publish('stream1', { app: 'WebRTCAppEE' });
    const inn = await player('stream1', { app: 'WebRTCAppEE' });
    await shows(inn);
    const embedded = await open(`${cluster.play}/WebRTCAppEE/play.html?id=stream1`);
    await shows(embedded);
    for (const page of [out, inn, embedded]) {
      await page.context().close();
    }
  });

  test('an edge is killed', async (t) => {
    const out = await publish('survivor');
    const inn = await player('survivor');
    await shows(inn, 30);
    await inn.evaluate(() => { // the longest time between two pictures on the screen
      let last = performance.now();
      const known = new WeakSet();
      window.longest = 0;
      setInterval(() => {
        for (const v of [...document.querySelectorAll('video')].filter((x) => !known.has(x))) {
          known.add(v);
          const shown = (now) => {
            window.longest = Math.max(window.longest, now - last);
            last = now;
            v.requestVideoFrameCallback(shown);
          };
          v.requestVideoFrameCallback(shown);
        }
      }, 20);
    });
    const nodes = JSON.parse(await cluster.sluice('nodes', '--json'));
    await until('an edge with a viewer', async () => {
      const list = JSON.parse(await cluster.sluice('nodes', '--json'));
      const edge = list.find((n) => n.role === 'edge' && n.viewers > 0);
      if (edge) {
        process.kill(edge.pid, 'SIGKILL');
      }
      return [edge, list];
    });
    assert.equal(nodes.length, 3);
    await until('the player has noticed', async () => (await state(inn)) === 'reconnecting', { within: 12_000 });
    await inState(inn, 'live');
    await shows(inn, 30);
    const gap = await inn.evaluate(() => window.longest);
    t.diagnostic(`no picture for ${gap.toFixed(0)} ms`);
    assert.ok(gap > 300 && gap < 4000, `no picture for ${gap.toFixed(0)} ms`); // 2.5 s where the machine has nothing else to do: make chaos
    await out.context().close();
    await inn.context().close();
  });

  for (const [name, look] of Object.entries(looks)) {
    test(`looks: ${name}`, async () => {
      const out = await publish(`look-${name}`, { look });
      const inn = await player(`look-${name}`, { look });
      await shows(inn, 60);
      await inn.keyboard.press('i');
      await shows(inn, 30);
      for (const [page, what] of [[out, 'publish'], [inn, 'player']]) {
        await screenshot(page, `${what}-${name}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(wide <= 0, `${what} is ${wide} pixels wider than a ${name} screen`);
        await page.context().close();
      }
    });
  }
});

test('a page without permission says so', { timeout: 60_000 }, async (t) => {
  const shy = await launch({ permissions: false, args: ['--deny-permission-prompts'] });
  t.after(() => shy.close());
  const page = await openPage(shy, `${cluster.publish}/live/?id=shy`);
  await part(page, 'allow').click();
  await until('a clear message', async () => {
    const text = await page.innerText('body');
    return [/permission|blocked|denied/i.test(text), text];
  }, { within: 15_000 });
  await screenshot(page, 'publish-no-permission');
});
