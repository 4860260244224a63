import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { clock } from './dom.js';
import { describe } from './figures.js';
import { messageFor } from './messages.js';

const local = [
  'unreachable', 'no_media', 'insecure_page', 'unsupported_browser', 'no_permission', 'no_camera', 'no_microphone',
  'nothing_to_send', 'device_busy', 'screen_refused', 'page_error',
];

test('every code of the server and of the page has words of its own', () => {
  const go = readFileSync(new URL('../../../internal/problem/codes.go', import.meta.url), 'utf8');
  const codes = [...go.matchAll(/Code\{"(\w+)"/g)].map((m) => m[1] ?? '');
  assert.ok(codes.length > 20, 'the list of codes was not found');
  for (const code of [...codes, ...local]) {
    for (const role of ['publish', 'play'] as const) {
      if (role === 'play' && /^(no_(permission|camera|microphone)|nothing_to_send|device_busy|screen_refused)$/.test(code)) continue;
      const m = messageFor(code, role);
      assert.notEqual(m.title, 'It did not work', `${role}: ${code} has no words`);
      assert.ok(m.hint.endsWith('.') || m.hint.endsWith('…'), `${code}: the hint is no sentence`);
    }
  }
});

test('an unknown code is named', () => assert.match(messageFor('brand_new', 'play').hint, /brand_new/));

test('time and figures as people read them', () => {
  assert.deepEqual([clock(0), clock(12_999), clock(3_725_000)], ['00:00', '00:12', '1:02:05']);
  const d = describe({ width: 0, height: 0, fps: 0, kbps: 2500, codec: '', rttMs: 3.14, lossPercent: 0, lost: 0, limitedBy: '' });
  assert.deepEqual(
    [d['resolution']?.text, d['bitrate']?.text, d['rtt']?.text, d['loss']?.text, d['buffer']?.text, d['bitrate']?.value],
    ['–', '2.50 Mbit/s', '3.1 ms', '0.0 %', '–', '2500'],
  );
});
