/** Keeps a viewer watching: opens sessions, waits for streams that are offline, comes back after every loss. */
import { Backoff, sleep } from '../wire/backoff.js';
import { asProblem, isPassing, Problem } from '../wire/problem.js';

export type WatchState = 'connecting' | 'live' | 'reconnecting' | 'waiting' | 'error';

export interface WatchStatus {
  state: WatchState;
  problem?: Problem;
  /** Whether the page goes on trying by itself. */
  retrying: boolean;
  /** Whether a picture has been seen, so that the last one can stay. */
  seen: boolean;
}

/** One try at watching. */
export interface WatchSession {
  /** Resolves when picture or sound advances; rejects with a Problem when it can't come. */
  started: Promise<void>;
  /** Resolves with the reason when media has stopped for good. */
  ended: Promise<Problem>;
  /** Resolves when the server asks for another session; this one goes on meanwhile. */
  moving: Promise<void>;
  /** quietly: another session has the screen already. */
  close(quietly?: boolean): void;
}

export interface WatchDeps {
  /** beside: another session has the screen until this one has media. */
  open(signal: AbortSignal, beside: boolean): Promise<WatchSession>;
  /** Resolves when an offline stream is worth another try. */
  waitForStart(signal: AbortSignal): Promise<void>;
  backoff?: Backoff;
}

/** A session that lived for less than this (ms) does not begin the waits anew: it may be the next to fail. */
const SETTLED = 5000;
/** When the server ends a session, most often the stream is over: ask soon, but not all viewers at once (ms). */
const ASK_SOON = 200;
/** Until another session is tried again beside one that shall end (ms). */
const MOVE_AGAIN = 1000;

export class Watcher {
  private life = new AbortController();
  private nudge = new AbortController();
  private running: Promise<void> = Promise.resolve();
  private seen = false;
  private readonly backoff: Backoff;

  constructor(
    private readonly deps: WatchDeps,
    private readonly onStatus: (s: WatchStatus) => void,
  ) {
    this.backoff = deps.backoff ?? new Backoff();
  }

  start(): void {
    this.life.abort();
    this.life = new AbortController();
    const { signal } = this.life;
    this.running = this.running.then(() => this.run(signal));
  }

  stop(): Promise<void> {
    this.life.abort();
    return this.running;
  }

  /** Tries again at once, whatever it is waiting for: the network is back, or the viewer asked. */
  retryNow(): void {
    this.backoff.reset();
    this.nudge.abort();
  }

  private async run(signal: AbortSignal): Promise<void> {
    let failed: Problem | undefined; // what the screen says meanwhile
    while (!signal.aborted) {
      // While it keeps failing the reason stays on the screen instead of flickering with each try.
      if (failed === undefined) this.set(this.seen ? 'reconnecting' : 'connecting');
      const why = await this.watchOnce(signal, failed?.code === 'stream_offline');
      if (signal.aborted) return;
      failed = await this.recover(why, failed, signal);
    }
  }

  /** One session from begin to end; returns why it ended. */
  private async watchOnce(signal: AbortSignal, waited: boolean): Promise<Outcome> {
    let session: WatchSession | undefined;
    let live = false;
    let began = 0;
    try {
      session = await this.deps.open(signal, false);
      if (waited && !signal.aborted) this.set('connecting');
      const early = await Promise.race([session.started, session.ended]);
      if (early instanceof Problem) return { problem: early, live };
      live = this.seen = true;
      began = Date.now();
      if (!signal.aborted) this.set('live');
      let next: WatchSession | undefined = session;
      while (next !== undefined) {
        session = next;
        next = await this.moved(session, signal);
      }
      const problem = await session.ended;
      const settled = Date.now() - began >= SETTLED;
      if (settled) this.backoff.reset();
      return { problem, live, settled };
    } catch (err) {
      return { problem: asProblem(err), live };
    } finally {
      session?.close();
    }
  }

  /** Waits until the server asks for another session and that one has the screen; undefined when the present one ended before. */
  private async moved(session: WatchSession, signal: AbortSignal): Promise<WatchSession | undefined> {
    const over = session.ended.then(() => true);
    let gone = await Promise.race([over, session.moving.then(() => false)]);
    while (!gone && !signal.aborted) {
      let next: WatchSession | undefined;
      try {
        next = await this.deps.open(signal, true);
        await Promise.race([next.started, next.ended.then((p) => Promise.reject(p)), over.then(() => next?.started)]);
        session.close(true);
        return next;
      } catch {
        next?.close(true); // the present one goes on
      }
      gone = await Promise.race([over, sleep(MOVE_AGAIN * (0.5 + Math.random()), signal).then(() => false)]);
    }
    return undefined;
  }

  /** Waits for as long as the problem asks; returns it when it should stay on the screen. */
  private async recover(
    { problem, live, settled }: Outcome,
    before: Problem | undefined,
    signal: AbortSignal,
  ): Promise<Problem | undefined> {
    this.nudge = new AbortController();
    const either = [signal, this.nudge.signal];
    if (problem.code === 'stream_offline') {
      this.set('waiting');
      return this.waitOffline(problem, signal);
    }
    if (live) {
      this.set('reconnecting', undefined, true);
      const soon = settled === true && problem.code === 'no_session';
      await sleep(soon ? ASK_SOON * Math.random() : this.backoff.next(), ...either);
      return undefined;
    }
    if (!isPassing(problem.code)) {
      this.set('error', problem);
      await sleep(Infinity, ...either);
      return undefined;
    }
    // Somebody who was watching is told only when it is not over with the first try.
    const quiet = this.seen && (before === undefined || before.code === 'stream_offline') && problem.code !== 'node_full';
    if (quiet) this.set('reconnecting', undefined, true);
    else this.set(this.seen ? 'reconnecting' : 'error', problem, true);
    await sleep(Math.max(this.backoff.next(), problem.retryAfter), ...either);
    return problem;
  }

  /** Returns the problem again: "waiting" stays on the screen until the server has a session for us. */
  private async waitOffline(offline: Problem, signal: AbortSignal): Promise<Problem | undefined> {
    const began = Date.now();
    const either = anyOf(signal, this.nudge.signal);
    try {
      await this.deps.waitForStart(either);
    } catch (err) {
      if (signal.aborted) return undefined;
      const problem = asProblem(err);
      this.set('error', problem);
      await sleep(Infinity, signal, this.nudge.signal);
      return undefined;
    }
    // A server that says "started" and "offline" in turn must not be asked in a tight loop.
    if (Date.now() - began < 500 && !either.aborted) await sleep(this.backoff.next(), either);
    else this.backoff.reset();
    return offline;
  }

  private set(state: WatchState, problem?: Problem, retrying = state !== 'error'): void {
    this.onStatus({ state, retrying, seen: this.seen, ...(problem === undefined ? {} : { problem }) });
  }
}

interface Outcome {
  problem: Problem;
  live: boolean;
  settled?: boolean;
}

/** AbortSignal.any, which browsers of 2022 lack. */
function anyOf(...signals: AbortSignal[]): AbortSignal {
  const c = new AbortController();
  for (const s of signals) {
    if (s.aborted) c.abort();
    else s.addEventListener('abort', () => c.abort(), { once: true, signal: c.signal });
  }
  return c.signal;
}
