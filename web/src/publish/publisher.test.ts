import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../wire/backoff.js';
import { Problem } from '../wire/problem.js';
import { captureProblem, checkCapture, type Capture } from './devices.js';
import { Publisher, type PublishSession } from './publisher.js';

class Session implements PublishSession {
  up!: () => void;
  fail!: (p: Problem) => void;
  end!: (p: Problem) => void;
  path!: (ok: boolean) => void;
  closed = false;
  readonly connected = new Promise<void>((resolve, reject) => {
    this.up = resolve;
    this.fail = reject;
  });
  readonly ended = new Promise<Problem>((r) => (this.end = r));
  move!: () => void;
  readonly moving = new Promise<void>((r) => (this.move = r));
  told: Promise<void> = Promise.resolve();
  close(): Promise<void> {
    this.closed = true;
    this.end(new Problem('unreachable', 'closed by this page'));
    return this.told;
  }
}

class Bench {
  readonly states: string[] = [];
  script: (Session | Problem)[] = [];
  opened = 0;
  readonly publisher = new Publisher({
    open: (signal, onPath) => {
      this.opened++;
      const next = this.script.shift() ?? new Problem('unauthorized', 'the script is over');
      if (next instanceof Problem) return Promise.reject(next);
      next.path = onPath;
      signal.addEventListener('abort', () => next.close()); // as Link does
      return Promise.resolve(next);
    },
    backoff: new Backoff(1, 1, () => 0.5),
  }, (s) => this.states.push(s.problem === undefined ? s.state : `${s.state}:${s.problem.code}`));

  async reach(...want: string[]): Promise<void> {
    const limit = Date.now() + 2000;
    while (this.states.slice(-want.length).join() !== want.join()) {
      if (Date.now() > limit) assert.fail(`states are ${this.states.join()}, want …${want.join()}`);
      await new Promise((r) => setTimeout(r, 1));
    }
  }
}

const lost = new Problem('no_media');
const inUse = new Problem('stream_in_use', '', 409);

test('publishes, loses the path for a moment, and stops', async () => {
  const b = new Bench();
  const s = new Session();
  b.script = [s];
  b.publisher.start();
  s.up();
  await b.reach('connecting', 'live');
  s.path(false);
  s.path(true);
  await b.reach('live', 'reconnecting', 'live');
  await b.publisher.stop();
  assert.equal(b.states.at(-1), 'idle');
  assert.ok(s.closed && !b.publisher.active);
});

test('who stops and starts again waits until the server has let the name go', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  let tell!: () => void;
  one.told = new Promise((r) => (tell = r));
  b.script = [one, two];
  b.publisher.start();
  one.up();
  await b.reach('live');
  void b.publisher.stop();
  b.publisher.start();
  await new Promise((r) => setTimeout(r, 5));
  assert.equal(b.opened, 1);
  two.up();
  tell();
  await b.reach('idle', 'connecting', 'live');
  assert.equal(b.opened, 2);
  await b.publisher.stop();
});

test('a session that ends is opened anew, through a server that is away', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  b.script = [one, new Problem('unreachable'), new Problem('no_node', '', 503), two];
  b.publisher.start();
  one.up();
  await b.reach('live');
  one.end(lost);
  two.up();
  await b.reach('reconnecting:no_node', 'reconnecting', 'live');
  assert.ok(one.closed);
  await b.publisher.stop();
});

test('a session that shall move goes on until another one sends', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  b.script = [one, new Problem('no_node', '', 503), two];
  b.publisher.start();
  one.up();
  await b.reach('live');
  one.move();
  two.up();
  const limit = Date.now() + 5000;
  while (!one.closed) {
    assert.ok(Date.now() < limit, 'the old session is still open');
    await new Promise((r) => setTimeout(r, 5));
  }
  assert.equal(b.opened, 3);
  assert.ok(!two.closed && b.publisher.session === two);
  assert.equal(b.states.join(), 'connecting,live');
  await b.publisher.stop();
  assert.ok(two.closed);
});

test('a session that is lost before another one sends is opened anew', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  b.script = [one, new Problem('no_node', '', 503), two];
  b.publisher.start();
  one.up();
  await b.reach('live');
  one.move();
  await new Promise((r) => setTimeout(r, 5));
  one.end(lost);
  two.up();
  await b.reach('reconnecting', 'live');
  await b.publisher.stop();
});

test('the first failure is the user’s to decide', async () => {
  for (const p of [inUse, new Problem('unreachable'), new Problem('node_full', '', 503)]) {
    const b = new Bench();
    b.script = [p];
    b.publisher.start();
    await b.reach('connecting', `error:${p.code}`);
    assert.equal(b.opened, 1);
    assert.ok(!b.publisher.active);
  }
});

test('media that never comes through is an error, and the session is closed', async () => {
  const b = new Bench();
  const s = new Session();
  b.script = [s];
  b.publisher.start();
  s.fail(lost);
  await b.reach('error:no_media');
  assert.ok(s.closed);
});

test('our own ghost holds the stream for a while after a loss, but not for ever', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  b.script = [one, inUse, inUse, two, ...Array<Problem>(20).fill(inUse)];
  b.publisher.start();
  one.up();
  two.up();
  await b.reach('live');
  one.end(lost);
  await b.reach('reconnecting', 'live');
  two.end(lost);
  await b.reach('error:stream_in_use');
  assert.equal(b.opened, 4 + 7);
});

test('a token that is no longer valid ends it', async () => {
  const b = new Bench();
  const s = new Session();
  b.script = [s, new Problem('unauthorized', '', 401), new Session()];
  b.publisher.start();
  s.up();
  await b.reach('live');
  s.end(lost);
  await b.reach('error:unauthorized');
});

for (const [name, what, code] of [
  ['NotAllowedError', 'camera', 'no_permission'],
  ['NotAllowedError', 'screen', 'screen_refused'],
  ['NotFoundError', 'camera', 'no_camera'],
  ['NotFoundError', 'microphone', 'no_microphone'],
  ['OverconstrainedError', 'camera', 'no_camera'],
  ['NotReadableError', 'camera', 'device_busy'],
  ['AbortError', 'microphone', 'device_busy'],
  ['WeirdError', 'camera', 'page_error'],
] as [string, Capture, string][]) {
  test(`${name} of the ${what} is ${code}`, () => {
    assert.equal(captureProblem(new DOMException('no', name), what).code, code);
  });
}

test('pages that can’t capture say why', () => {
  assert.throws(() => checkCapture({ isSecureContext: false, navigator: {} }), { code: 'insecure_page' });
  assert.throws(() => checkCapture({ isSecureContext: true, navigator: {} }), { code: 'unsupported_browser' });
});
