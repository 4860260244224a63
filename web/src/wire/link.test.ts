import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { Link } from './link.js';

const log: string[] = [];
let removed: () => void = () => {};
let answers = true;
const realFetch = globalThis.fetch;

/** Says in `log` what is done with it, in order. */
class Connection extends EventTarget {
  connectionState = 'new';
  localDescription = { sdp: 'offer' };
  createOffer = (): Promise<{ sdp: string }> => Promise.resolve({ sdp: 'offer' });
  setLocalDescription = (): Promise<void> => Promise.resolve();
  setRemoteDescription = (): Promise<void> => Promise.resolve();
  getTransceivers = (): [] => [];
  getSenders = (): object[] => [{
    replaceTrack: (t: unknown) => {
      log.push(`track ${String(t)}`);
      return Promise.resolve();
    },
  }];
  close(): void {
    log.push('closed');
  }
}

before(() => {
  globalThis.fetch = (_url, init) => {
    log.push(`${init?.method ?? ''}${init?.keepalive === true ? ' keepalive' : ''}`);
    if (init?.method === 'POST') return Promise.resolve(new Response('answer', { status: 201, headers: { Location: 'http://h/live/whip/s/1' } }));
    return new Promise((resolve) => {
      removed = () => resolve(new Response(null, { status: 200 }));
      if (answers) removed();
    });
  };
});
after(() => (globalThis.fetch = realFetch));
beforeEach(() => {
  log.length = 0;
  answers = true;
});

const open = (signal: AbortSignal): Promise<Link> => Link.open({
  endpoint: 'http://h/live/whip/s', token: '', pc: new Connection() as unknown as RTCPeerConnection,
  signal, trickleAfter: Infinity, restarts: true, onClosing: () => log.push('closing'),
});

test('a goodbye is sent before the connection is closed, and answered first', async () => {
  const stop = new AbortController();
  const link = await open(stop.signal);
  answers = false;
  stop.abort(); // as pagehide does: what is not sent when this returns is lost
  assert.deepEqual(log, ['POST', 'DELETE keepalive', 'closing', 'track null']);
  assert.equal((await link.ended).detail, 'closed by this page');
  assert.equal(log.at(-1), 'track null');
  removed();
  await link.close();
  assert.deepEqual(log, ['POST', 'DELETE keepalive', 'closing', 'track null', 'closed']);
});

test('a server that does not answer a goodbye is left after a second', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const link = await open(new AbortController().signal);
  answers = false;
  const left = link.close();
  t.mock.timers.tick(999);
  await new Promise((r) => setImmediate(r));
  assert.ok(!log.includes('closed'));
  t.mock.timers.tick(1);
  await left;
  assert.equal(log.at(-1), 'closed');
});

test('who goes before the server has answered leaves nothing open', async () => {
  const stop = new AbortController();
  const opening = open(stop.signal);
  stop.abort();
  await assert.rejects(opening, { code: 'unreachable' });
  assert.ok(log.includes('closed'), log.join());
  assert.ok(!log.includes('POST') || log.includes('DELETE keepalive'), log.join());
});
