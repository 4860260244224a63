import assert from 'node:assert/strict';
import { test } from 'node:test';
import { playLink, readAddress, socketUrl, validId, whepUrl } from './address.js';
import { Backoff } from './backoff.js';

for (const [name, pathname, search, app, id, token] of [
  ['defaults', '/live/', '', 'live', 'stream1', ''],
  ['id and token', '/WebRTCAppEE/player.html', '?id=cam-2&token=a%2Bb', 'WebRTCAppEE', 'cam-2', 'a+b'],
  ['name', '/live/', '?name=x', 'live', 'x', ''],
  ['id before name', '/live/play.html', '?name=x&id=y', 'live', 'y', ''],
  ['empty id', '/live/', '?id=%20', 'live', 'stream1', ''],
] as const) {
  test(`address: ${name}`, () => assert.deepEqual(readAddress({ pathname, search }), { app, id, token }));
}

test('stream names follow the rule of the server', () => {
  for (const ok of ['a', 'stream1', 'A-b_c.d', '-x', 'a'.repeat(128)]) assert.ok(validId(ok), ok);
  for (const bad of ['', '.a', 'a b', 'ä', '流', 'a/b', 'a\n', 'a'.repeat(129), '../x']) assert.ok(!validId(bad), bad);
});

test('addresses are built so that no name leads elsewhere', () => {
  assert.equal(whepUrl({ app: 'live', id: '../x?y', token: '' }), '/live/whep/..%2Fx%3Fy');
  assert.equal(socketUrl({ app: 'live', id: 's', token: '' }, { protocol: 'https:', host: 'h:5443' }), 'wss://h:5443/live/websocket?target=edge');
});

for (const [name, configured, want] of [
  ['same origin', '', 'https://cam.example:8443/live/player.html?id=s'],
  ['port of the same host', ':5443', 'https://cam.example:5443/live/player.html?id=s'],
  ['another origin', 'https://play.example/', 'https://play.example/live/player.html?id=s'],
  ['nonsense', 'javascript:alert(1)', 'https://cam.example:8443/live/player.html?id=s'],
] as const) {
  test(`play link: ${name}`, () => {
    const loc = { protocol: 'https:', hostname: 'cam.example', origin: 'https://cam.example:8443' };
    assert.equal(playLink({ app: 'live', id: 's', token: 'secret' }, configured, loc), want);
  });
}

test('waits grow from 0.5 s to 5 s, spread by a quarter, and begin anew', () => {
  const middle = new Backoff(500, 5000, () => 0.5);
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(() => middle.next()), [500, 1000, 2000, 4000, 5000, 5000]);
  middle.reset();
  assert.equal(middle.next(), 500);
  assert.equal(new Backoff(500, 5000, () => 0).next(), 375);
  assert.ok(new Backoff(500, 5000, () => 0.999).next() < 625);
});
