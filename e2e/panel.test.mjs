// The panel, as an operator uses it: first run, log-in, the cluster live, streams, roles. Every page is looked at by axe, and
// kept as a picture in light, dark and phone size.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { launch, openPage, screenshot, until } from './lib/browser.mjs';
import { startCluster } from './lib/cluster.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const boss = { name: 'ada@example.com', password: 'four plain words more' };
const reader = { name: 'reader@example.com', password: 'some other plain words' };

let cluster;
let browser;
let page; // the administrator's

before(async () => {
  browser = await launch();
  cluster = await startCluster();
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await cluster?.stop();
}, { timeout: 30_000 });

/** Opens the panel; what the security policy refuses counts as a problem. */
async function open(url, options = {}) {
  const p = await openPage(browser, 'about:blank', { viewport: { width: 1280, height: 860 }, colorScheme: 'light', ...options });
  p.setDefaultTimeout(10_000);
  p.on('console', (m) => { if (/Content Security Policy/.test(m.text())) p.problems.push(m.text()); });
  await p.goto(url);
  return p;
}

async function logIn(p, who) {
  await p.getByLabel('Name').fill(who.name);
  await p.getByLabel('Password').fill(who.password);
  await p.getByRole('button', { name: /^(Log in|Make the account)$/ }).click();
  await p.getByRole('navigation', { name: 'Pages' }).waitFor();
}

const nodes = async () => JSON.parse(await cluster.sluice('nodes', '--json'));
const rows = (p) => p.locator('[role=row][data-row]').evaluateAll((all) => all.map((r) => ({
  key: r.getAttribute('data-row'),
  ...Object.fromEntries([...r.querySelectorAll('[data-cell]')].map((c) => [c.getAttribute('data-cell'), c.innerText])),
})));
const rowOf = async (p, id) => (await rows(p)).find((r) => r.key === id);

async function violations(p) {
  await p.evaluate(axe);
  const found = await p.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], iframes: false }));
  return found.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(' | ')}`);
}

describe('the panel', { timeout: 300_000 }, () => {
  test('first run: the link makes the first administrator', async () => {
    const link = await until('the link is printed', () => [cluster.output.map((l) => /https:\S+#\/first\/\S+/.exec(l)?.[0]).find(Boolean), cluster.output]);
    const stranger = await open(`${cluster.publish}/`);
    await stranger.getByText('This cluster has no account yet').waitFor();
    assert.deepEqual(await violations(stranger), []);
    await stranger.context().close();

    page = await open(link, { viewport: { width: 1360, height: 860 } }); // wide enough for all columns
    await page.getByRole('heading', { name: 'Make yourself the administrator' }).waitFor();
    assert.deepEqual(await violations(page), []);
    await screenshot(page, 'panel-first-run');
    await logIn(page, boss);
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
  });

  test('log-in: a wrong password is refused in words, the right one lets in', async () => {
    const p = await open(`${cluster.play}/`);
    await p.getByLabel('Name').fill(boss.name);
    await p.getByLabel('Password').fill('not that one at all');
    await p.getByRole('button', { name: 'Log in' }).click();
    await p.locator('[role=alert][data-code=bad_credentials]').waitFor();
    assert.deepEqual(await violations(p), []);
    await screenshot(p, 'panel-log-in');
    await logIn(p, boss);
    await p.getByRole('button', { name: 'Log out' }).click();
    await p.getByRole('heading', { name: 'Log in' }).waitFor();
    await p.context().close();
  });

  test('Cluster lists what sluice nodes does', async () => {
    await page.getByRole('link', { name: 'Cluster', exact: true }).click();
    await until('the list is that of sluice nodes', async () => {
      const want = (await nodes()).map((n) => ({ id: n.id, state: n.full ? 'full' : n.state, http: n.http, version: n.version, pid: n.pid, viewers: n.viewers, streams: n.streams })).sort((a, b) => (a.id < b.id ? -1 : 1));
      const seen = (await rows(page)).map((r) => ({ id: r.key, state: r.state.split('\n')[0], http: r.http, version: r.version, pid: Number(/process (\d+)/.exec(r.id)?.[1]), viewers: Number(r.viewers), streams: Number(r.streams) }))
        .sort((a, b) => (a.id < b.id ? -1 : 1));
      return [want.length === 3 && JSON.stringify(want) === JSON.stringify(seen), { want, seen }];
    });
  });

  let publisher;
  test('a stream that is published appears, with its viewers, and in the map', async () => {
    publisher = await openPage(browser, `${cluster.publish}/live/?id=match`);
    await page.getByRole('link', { name: 'Streams', exact: true }).click();
    await page.getByText('Nobody publishes at the moment').waitFor();
    await publisher.locator('[data-testid=start]').click();
    await until('the publisher is live', async () => (await publisher.getAttribute('body', 'data-state')) === 'live');
    const began = Date.now();
    await page.locator('[data-row="live/match"]').waitFor();
    const took = Date.now() - began;
    assert.ok(took < 3000, `it took ${took} ms to be on screen`);
    const viewer = await openPage(browser, `${cluster.play}/live/player.html?id=match`);
    await until('the viewer is counted', async () => [(await rowOf(page, 'live/match'))?.viewers === '1', await rows(page)], { within: 20_000 });
    await page.getByRole('link', { name: 'match' }).click();
    await page.getByRole('heading', { name: 'match' }).waitFor();
    await page.frameLocator('iframe').locator('video').waitFor();
    await page.getByText(/% lost/).first().waitFor();
    await page.getByRole('img', { name: /QR code/ }).waitFor();
    await screenshot(page, 'panel-stream');
    await page.getByRole('link', { name: 'Cluster', exact: true }).click();
    await page.locator('[data-flow^="origin-1 edge-"]').first().waitFor({ state: 'attached' });
    await viewer.context().close();
  });

  test('every page, in light, dark and phone size: axe finds nothing', async () => {
    const pages = ['overview', 'cluster', 'streams', 'streams/live/match', 'applications', 'applications/of/live', 'users', 'audit', 'account'];
    const found = [];
    await Promise.all(Object.entries({
      light: {}, dark: { colorScheme: 'dark' }, phone: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
    }).map(async ([look, options]) => {
      const p = await open('about:blank', { ...options, storageState: await page.context().storageState() });
      await p.goto(`${cluster.publish}/`);
      for (const name of pages) {
        await p.evaluate((to) => { location.hash = `#/${to}`; }, name);
        await p.locator('main h1').waitFor();
        await until(`${name} has loaded`, async () => (await p.locator('main .loading').count()) === 0);
        const wide = await p.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) found.push(`${name} in ${look} is ${wide} px too wide`);
        await screenshot(p, `panel-${name.replaceAll('/', '-')}-${look}`);
        if (look === 'light' || name === 'cluster') found.push(...(await violations(p)).map((v) => `${name} in ${look}: ${v}`));
      }
      found.push(...p.problems);
      await p.context().close();
    }));
    assert.deepEqual(found, []);
  });

  test('an edge that is killed is seen', async () => {
    const edge = (await nodes()).find((n) => n.id === 'edge-1');
    process.kill(edge.pid, 'SIGKILL');
    const began = Date.now();
    await until('edge-1 is dead, or another process', async () => {
      const r = await rowOf(page, 'edge-1');
      return [r === undefined || r.state.startsWith('dead') || !r.id.includes(`process ${edge.pid}`), r];
    });
    assert.ok(Date.now() - began < 8000);
    await until('edge-1 is ready again', async () => [(await rowOf(page, 'edge-1'))?.state.startsWith('ready'), await rowOf(page, 'edge-1')], { within: 20_000 });
  });

  test('an edge is drained from the panel', async () => {
    await page.getByRole('button', { name: 'Actions on edge-2' }).click();
    await page.getByRole('menuitem', { name: 'Write a note…' }).click();
    await page.getByRole('textbox', { name: 'Note' }).fill('goes today');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.locator('[data-row=edge-2]').getByText('goes today').waitFor();
    await page.getByRole('button', { name: 'Actions on edge-2' }).click();
    await page.getByRole('menuitem', { name: 'Drain…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Minutes until it ends').fill('1');
    assert.deepEqual(await violations(page), []);
    await screenshot(page, 'panel-drain');
    await dialog.getByRole('button', { name: 'Drain', exact: true }).click();
    await until('edge-2 has left', async () => [(await rowOf(page, 'edge-2')) === undefined, await rowOf(page, 'edge-2')], { within: 20_000 });
    await until('sluice nodes says so', async () => (await nodes()).every((n) => n.id !== 'edge-2'));
  });

  test('roles: who may only look sees no way to change', async () => {
    await page.getByRole('link', { name: 'Users', exact: true }).click();
    await page.getByRole('button', { name: 'Add an account' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name').fill(reader.name);
    await dialog.getByLabel('Password').fill(reader.password);
    await dialog.getByRole('button', { name: 'Add', exact: true }).click();
    await page.locator(`[data-row="${reader.name}"]`).waitFor();
    const p = await open(`${cluster.publish}/#/cluster`);
    await logIn(p, reader);
    await p.locator('[data-row=edge-1]').waitFor();
    assert.equal(await p.getByRole('button', { name: /^Actions on/ }).count(), 0);
    assert.deepEqual(await p.getByRole('navigation', { name: 'Pages' }).getByRole('link').allInnerTexts(), ['Overview', 'Cluster', 'Streams', 'Applications', 'Account']);
    await p.goto(`${cluster.publish}/#/users`);
    await p.getByText('Your role does not have this page').waitFor();
    assert.deepEqual([...p.problems, ...page.problems], []);
    await p.context().close();
    await page.goto(`${cluster.publish}/#/streams/live/match`);
    await page.getByRole('button', { name: 'Stop…' }).click();
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await page.getByRole('dialog').waitFor({ state: 'hidden' });
    await publisher.context().close();
    assert.deepEqual(page.problems, []);
  });
});
