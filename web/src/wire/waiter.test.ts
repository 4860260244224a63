import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Problem } from './problem.js';
import { read, waitForStart } from './waiter.js';

const json = JSON.stringify;

for (const [name, message, want] of [
  ['offline: wait', json({ command: 'error', definition: 'no_stream_exist', streamId: 's', error_code: '404' }), undefined],
  ['pong', '{"command":"pong"}', undefined],
  ['started', json({ command: 'notification', definition: 'streaming_started', streamId: 's' }), 'started'],
  ['another stream started', json({ command: 'notification', definition: 'streaming_started', streamId: 't' }), undefined],
  ['live already: an offer', json({ command: 'takeConfiguration', type: 'offer', streamId: 's' }), 'started'],
  ['not allowed', json({ command: 'error', definition: 'unauthorized_access', streamId: 's' }), 'refused'],
  ['node full', json({ command: 'error', definition: 'highResourceUsage', streamId: 's' }), 'failed'],
  ['node is drained', json({ command: 'notification', definition: 'server_will_stop' }), 'failed'],
  ['not JSON', '<html>', undefined],
] as const) {
  test(`message: ${name}`, () => assert.equal(read(message, 's'), want));
}

class FakeSocket {
  static last: FakeSocket;
  sent: string[] = [];
  closed = false;
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  onerror: (() => void) | null = null;
  constructor(readonly url: string) {
    FakeSocket.last = this;
  }
  send(m: string): void {
    this.sent.push(m);
  }
  close(): void {
    this.closed = true;
  }
}

/** Starts waiting; settled() tells what came of it after the promise jobs have run. */
function start(signal = new AbortController().signal): { socket: FakeSocket; settled: () => Promise<string> } {
  let state = 'waiting';
  waitForStart({ url: 'wss://h/live/websocket', streamId: 's', token: 't', signal, WebSocket: FakeSocket as unknown as typeof WebSocket })
    .then(() => (state = 'again'), (p: Problem) => (state = p.code));
  return {
    socket: FakeSocket.last,
    settled: async () => {
      for (let i = 0; i < 10; i++) await Promise.resolve();
      return state;
    },
  };
}

function withClock(name: string, run: () => Promise<void>): void {
  test(name, async () => {
    mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
    try {
      await run();
    } finally {
      mock.timers.reset();
    }
  });
}

withClock('asks to play, pings every 3 s, ends when the stream starts', async () => {
  const { socket, settled } = start();
  socket.onopen?.();
  assert.deepEqual(JSON.parse(socket.sent[0] ?? ''), { command: 'play', streamId: 's', token: 't', subscriberId: '', subscriberCode: '' });
  mock.timers.tick(6000);
  assert.equal(socket.sent.filter((m) => m === '{"command":"ping"}').length, 2);
  socket.onmessage?.({ data: '{"command":"notification","definition":"streaming_started","streamId":"s"}' });
  assert.equal(await settled(), 'again');
  assert.ok(socket.closed);
});

withClock('a socket that fails means asking again after 3 s', async () => {
  const { socket, settled } = start();
  socket.onclose?.();
  assert.equal(await settled(), 'waiting');
  mock.timers.tick(2900);
  assert.equal(await settled(), 'waiting');
  mock.timers.tick(200);
  assert.equal(await settled(), 'again');
});

withClock('a socket that says nothing for 10 s is given up', async () => {
  const { socket, settled } = start();
  socket.onopen?.();
  mock.timers.tick(10_100);
  assert.ok(socket.closed);
  assert.equal(await settled(), 'waiting');
  mock.timers.tick(3000);
  assert.equal(await settled(), 'again');
});

withClock('an answering socket is kept for hours', async () => {
  const { socket, settled } = start();
  socket.onopen?.();
  for (let i = 0; i < 2400; i++) {
    mock.timers.tick(3000);
    socket.onmessage?.({ data: '{"command":"pong"}' });
  }
  assert.equal(await settled(), 'waiting');
  assert.ok(!socket.closed);
});

withClock('a refusal is a problem; stopping closes the socket', async () => {
  const a = start();
  a.socket.onmessage?.({ data: '{"command":"error","definition":"user_blocked","streamId":"s"}' });
  assert.equal(await a.settled(), 'forbidden');
  const life = new AbortController();
  const b = start(life.signal);
  life.abort();
  assert.equal(await b.settled(), 'again');
  assert.ok(b.socket.closed);
});
