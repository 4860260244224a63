// Starts Debian's Chromium with a fake camera and microphone.

import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

/** The program; a wrapper of it can be launched instead. */
export const chromiumPath = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Where screenshots of a run are kept. */
export const artifacts = fileURLToPath(new URL('../artifacts', import.meta.url));

/** Launches Chromium. Permissions are given without a question; certificates are not checked. */
export async function launch({ args = [], permissions = true, executable = chromiumPath } = {}) {
  if (!existsSync(chromiumPath)) {
    throw new Error(`${chromiumPath} is missing: install the Debian package "chromium" (apt-get install chromium), or set CHROMIUM to the program`);
  }
  return chromium.launch({
    executablePath: executable,
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking',
      '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
      '--use-fake-device-for-media-stream', ...(permissions ? ['--use-fake-ui-for-media-stream'] : []),
      '--autoplay-policy=no-user-gesture-required', '--ignore-certificate-errors', ...args,
    ],
  });
}

/** Opens a page in a context of its own; errors of its scripts are collected in page.problems. */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (e) => page.problems.push(e.stack ?? String(e)));
  await page.goto(url);
  return page;
}

/** Keeps a picture of the page under artifacts/. */
export async function screenshot(page, name) {
  mkdirSync(artifacts, { recursive: true });
  const path = join(artifacts, `${name}.png`);
  await page.screenshot({ path });
  return path;
}

/**
 * Polls until probe returns something true and returns it. When it does not in time, the error
 * says what it was last.
 */
export async function until(what, probe, { within = 10_000, every = 50 } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    const { done, seen } = await look(probe);
    if (done) {
      return done;
    }
    if (Date.now() > deadline) {
      throw new Error(`${what}: not true within ${within / 1000} s; last seen: ${JSON.stringify(seen)}`);
    }
    await new Promise((resolve) => { setTimeout(resolve, every); });
  }
}

// A probe returns its value, or [value, what to report while it is not true].
async function look(probe) {
  const v = await probe();
  return Array.isArray(v) ? { done: v[0], seen: v[1] } : { done: v, seen: v };
}
