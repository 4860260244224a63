import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readEvents, readLayer, readRelays } from './relays.js';

const cases: { name: string; header: string | null; want: unknown }[] = [
  { name: 'none', header: null, want: [] },
  {
    name: 'as the server sends them, joined by the browser',
    header: '<turn:192.0.2.1:3478?transport=udp>; rel="ice-server"; username="17:x"; credential="a+b/c="; credential-type="password", '
      + '<turn:[2001:db8::1]:3478?transport=tcp>; rel="ice-server"; username="17:x"; credential="a+b/c="; credential-type="password"',
    want: [
      { urls: 'turn:192.0.2.1:3478?transport=udp', username: '17:x', credential: 'a+b/c=' },
      { urls: 'turn:[2001:db8::1]:3478?transport=tcp', username: '17:x', credential: 'a+b/c=' },
    ],
  },
  { name: 'STUN', header: '<stun:stun.example.org>;rel=ice-server', want: [{ urls: 'stun:stun.example.org' }] },
  { name: 'other links', header: '</a>; rel="next", <https://x/>; rel="ice-server", <turn:x>; rel="other"', want: [] },
  { name: 'quotes and commas', header: '<turn:x>; rel="ice-server"; username="a\\"b, <c>"; credential="p"', want: [{ urls: 'turn:x', username: 'a"b, <c>', credential: 'p' }] },
  { name: 'nonsense', header: '<turn:x; rel="ice-server"', want: [] },
];

for (const c of cases) {
  test(`relays: ${c.name}`, () => assert.deepEqual(readRelays(c.header), c.want));
}

test('finds the events of a session', () => {
  const rel = (protocol: string): string => `rel="urn:ietf:params:${protocol}:ext:core:server-sent-events"; events="reconnect"`;
  for (const [header, want] of [
    [null, ''],
    ['<stun:a>; rel="ice-server"', ''],
    [`</live/whep/s/n.x/events>; ${rel('whep')}, <stun:a>; rel="ice-server"`, '/live/whep/s/n.x/events'],
    [`<stun:a>; rel="ice-server", </e>; ${rel('whip')}`, '/e'],
    [`</e>; rel="urn:ietf:params:whep:ext:core:layer"`, ''],
  ] as [string | null, string][]) {
    assert.equal(readEvents(header), want);
  }
});

test('finds where a viewer chooses', () => {
  assert.equal(readLayer('</e>; rel="urn:ietf:params:whep:ext:core:server-sent-events", </s/layer>; rel="urn:ietf:params:whep:ext:core:layer"'), '/s/layer');
  assert.equal(readLayer(null), '');
});
