import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../wire/backoff.js';
import { Problem } from '../wire/problem.js';
import { Watcher, type WatchSession, type WatchStatus } from './watcher.js';

/** One session that the test drives. */
class Session implements WatchSession {
  start!: () => void;
  end!: (p: Problem) => void;
  move!: () => void;
  readonly moving = new Promise<void>((r) => (this.move = r));
  closed = false;
  quietly: boolean | undefined;
  readonly started = new Promise<void>((r) => (this.start = r));
  readonly ended = new Promise<Problem>((r) => (this.end = r));
  close(quietly?: boolean): void {
    this.closed = true;
    this.quietly ??= quietly ?? false;
  }
}

/** A watcher whose openings, waits and states the test scripts and reads. */
class Bench {
  readonly states: string[] = [];
  readonly opened: Session[] = [];
  readonly beside: boolean[] = [];
  script: (Session | Problem)[] = [];
  waits = 0;
  waitResult: () => Promise<void> = () => Promise.resolve();
  private wake: (() => void) | undefined;
  readonly watcher = new Watcher({
    open: (_, beside) => {
      this.beside.push(beside);
      const next = this.script.shift() ?? new Problem('unauthorized', 'the script is over');
      if (next instanceof Problem) return Promise.reject(next);
      this.opened.push(next);
      return Promise.resolve(next);
    },
    waitForStart: () => {
      this.waits++;
      return this.waitResult();
    },
    backoff: new Backoff(1, 1, () => 0.5),
  }, (s: WatchStatus) => {
    this.states.push(s.problem === undefined ? s.state : `${s.state}:${s.problem.code}`);
    this.wake?.();
  });

  /** Resolves when the last states are these. */
  async reach(...want: string[]): Promise<void> {
    const limit = Date.now() + 2000;
    while (this.states.slice(-want.length).join() !== want.join()) {
      if (Date.now() > limit) assert.fail(`states are ${this.states.join()}, want …${want.join()}`);
      await new Promise<void>((r) => {
        this.wake = r;
        setTimeout(r, 50);
      });
    }
  }
}

const lost = new Problem('no_media', 'no media arrives');

test('a loss is followed by a new session, and the old one is closed', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  b.script = [one, two];
  b.watcher.start();
  one.start();
  await b.reach('connecting', 'live');
  one.end(lost);
  await b.reach('reconnecting', 'reconnecting');
  two.start();
  await b.reach('live');
  assert.ok(one.closed && !two.closed);
  await stopWith(b, two);
});

test('a session that shall move has the screen until another one has a picture', async () => {
  const b = new Bench();
  const [one, two, three] = [new Session(), new Session(), new Session()];
  b.script = [one, two, three];
  b.watcher.start();
  one.start();
  await b.reach('connecting', 'live');
  one.move();
  const reached = async (n: number): Promise<void> => {
    for (const limit = Date.now() + 5000; b.opened.length < n; await new Promise((r) => setTimeout(r, 5))) {
      assert.ok(Date.now() < limit, `${b.opened.length} sessions were opened, want ${n}`);
    }
  };
  await reached(2);
  assert.ok(!one.closed);
  two.end(lost); // that one did not get through: another try
  await reached(3);
  assert.ok(!one.closed && two.closed && two.quietly === true);
  three.start();
  for (const limit = Date.now() + 5000; !one.closed; await new Promise((r) => setTimeout(r, 5))) assert.ok(Date.now() < limit);
  assert.ok(one.quietly === true && !three.closed);
  assert.deepEqual(b.beside, [false, true, true]);
  assert.equal(b.states.join(), 'connecting,live');
  await stopWith(b, three);
});

async function stopWith(b: Bench, running: Session): Promise<void> {
  const done = b.watcher.stop();
  running.end(new Problem('unreachable', 'closed'));
  await done;
  assert.ok(running.closed);
}

test('an offline stream is waited for, without another request until it starts', async () => {
  const b = new Bench();
  const s = new Session();
  let begin!: () => void;
  b.waitResult = () => new Promise((r) => (begin = r));
  b.script = [new Problem('stream_offline', '', 404), s];
  b.watcher.start();
  await b.reach('connecting', 'waiting');
  assert.equal(b.opened.length, 0);
  begin();
  await b.reach('waiting', 'connecting');
  s.start();
  await b.reach('live');
  assert.equal(b.waits, 1);
  await stopWith(b, s);
});

test('a stream that ends is waited for', async () => {
  const b = new Bench();
  const s = new Session();
  b.waitResult = () => new Promise(() => {});
  b.script = [s, new Problem('stream_offline', '', 404)];
  b.watcher.start();
  s.start();
  await b.reach('live');
  s.end(new Problem('no_session'));
  await b.reach('reconnecting', 'reconnecting', 'waiting');
});

test('a full server is asked again, and its reason stays on the screen meanwhile', async () => {
  const b = new Bench();
  const s = new Session();
  const full = new Problem('node_full', '', 503);
  b.script = [full, full, s];
  b.watcher.start();
  await b.reach('connecting', 'error:node_full', 'error:node_full');
  s.start();
  await b.reach('live');
  await stopWith(b, s);
});

test('what does not pass by itself waits for the viewer', async () => {
  const b = new Bench();
  const s = new Session();
  b.script = [new Problem('unauthorized', '', 401), s];
  b.watcher.start();
  await b.reach('connecting', 'error:unauthorized');
  await new Promise((r) => setTimeout(r, 20)); // much longer than the back-off of this test
  assert.equal(b.opened.length, 0);
  b.watcher.retryNow();
  await b.reach('error:unauthorized', 'connecting');
  s.start();
  await b.reach('live');
  await stopWith(b, s);
});

test('somebody who was watching learns the reason with the second failure', async () => {
  const b = new Bench();
  const s = new Session();
  const away = new Problem('unreachable');
  b.script = [s, away, away, new Problem('forbidden')];
  b.watcher.start();
  s.start();
  await b.reach('live');
  s.end(lost);
  await b.reach('reconnecting', 'reconnecting', 'reconnecting', 'reconnecting:unreachable', 'error:forbidden');
});

test('a viewer who may not wait is told so', async () => {
  const b = new Bench();
  b.waitResult = () => Promise.reject(new Problem('forbidden'));
  b.script = [new Problem('stream_offline', '', 404)];
  b.watcher.start();
  await b.reach('waiting', 'error:forbidden');
});

test('after stop nothing is opened', async () => {
  const b = new Bench();
  b.script = [new Problem('unreachable'), new Session()];
  b.watcher.start();
  await b.watcher.stop();
  await new Promise((r) => setTimeout(r, 20));
  assert.equal(b.opened.length, 0);
});

test('an offline stream that is asked for again and again stays waiting on the screen', async () => {
  const b = new Bench();
  const s = new Session();
  const offline = new Problem('stream_offline', '', 404);
  const one = new Session();
  b.script = [one, offline, offline, offline, s];
  b.watcher.start();
  one.start();
  await b.reach('live');
  one.end(new Problem('no_session'));
  await b.reach('reconnecting', 'reconnecting', 'waiting', 'waiting', 'waiting', 'connecting');
  assert.equal(b.waits, 3);
  s.start();
  await b.reach('connecting', 'live');
  await stopWith(b, s);
});

test('a session whose picture does not advance is never live', async () => {
  const b = new Bench();
  const [one, two] = [new Session(), new Session()];
  b.waitResult = () => new Promise(() => {});
  b.script = [one, two, new Problem('stream_offline', '', 404)];
  b.watcher.start();
  one.start();
  await b.reach('live');
  one.end(lost);
  await b.reach('reconnecting', 'reconnecting');
  two.end(lost); // the server had a last picture, and nothing after it
  await b.reach('waiting');
  assert.equal(b.states.filter((x) => x === 'live').length, 1, b.states.join());
});
