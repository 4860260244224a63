/** Keeps a stream published: opens WHIP sessions, comes back after every loss, stops for what won't pass. */
import { Backoff, sleep } from '../wire/backoff.js';
import { asProblem, isPassing, Problem } from '../wire/problem.js';

export type PublishState = 'idle' | 'connecting' | 'live' | 'reconnecting' | 'error';

export interface PublishStatus {
  state: PublishState;
  problem?: Problem;
}

/** One try at publishing. */
export interface PublishSession {
  /** Resolves when media can flow; rejects with a Problem. */
  connected: Promise<void>;
  ended: Promise<Problem>;
  /** Resolves when the server asks for another session; this one goes on meanwhile. */
  moving: Promise<void>;
  /** Resolves when the server knows. */
  close(): Promise<void>;
}

export interface PublishDeps<S extends PublishSession> {
  /** onPath is told when the session's path is lost for the moment, and when it is back. */
  open(signal: AbortSignal, onPath: (ok: boolean) => void): Promise<S>;
  backoff?: Backoff;
}

/** The server may take our own last session for somebody else until it falls silent: so often it is asked again. */
const IN_USE_TRIES = 6;
/** Until another session is tried again beside one that shall end (ms). */
const MOVE_AGAIN = 1000;
/**
 * For how long two sessions send the same (ms): until the new one's first key frame is at the server. What viewers see by the old way
 * after that they don't see by the new one, and would wait for another key frame.
 */
const HAND_OVER = 100;

export class Publisher<S extends PublishSession = PublishSession> {
  /** The one that sends, once it is open. */
  session: S | undefined;
  private life: AbortController | undefined;
  private nudge = new AbortController();
  private running: Promise<void> = Promise.resolve();
  private readonly backoff: Backoff;

  constructor(
    private readonly deps: PublishDeps<S>,
    private readonly onStatus: (s: PublishStatus) => void,
  ) {
    this.backoff = deps.backoff ?? new Backoff();
  }

  get active(): boolean {
    return this.life !== undefined && !this.life.signal.aborted;
  }

  start(): void {
    this.life?.abort();
    const life = new AbortController();
    this.life = life;
    this.running = this.running.then(() => this.run(life));
  }

  /** Ends the stream; returns when the session is closed. */
  stop(): Promise<void> {
    const was = this.active;
    this.life?.abort();
    if (was) this.onStatus({ state: 'idle' });
    return this.running;
  }

  retryNow(): void {
    this.backoff.reset();
    this.nudge.abort();
  }

  private async run(life: AbortController): Promise<void> {
    const { signal } = life;
    let lived = false;
    let inUse = 0;
    while (!signal.aborted) {
      this.onStatus({ state: lived ? 'reconnecting' : 'connecting' });
      const result = await this.publishOnce(signal);
      if (signal.aborted) return;
      lived ||= result.live;
      inUse = result.problem.code === 'stream_in_use' ? inUse + 1 : 0;
      const again = lived && (result.live || isPassing(result.problem.code) || (inUse > 0 && inUse <= IN_USE_TRIES));
      if (!again) {
        life.abort();
        return this.onStatus({ state: 'error', problem: result.problem });
      }
      const problem = result.live ? undefined : result.problem;
      this.onStatus({ state: 'reconnecting', ...(problem === undefined ? {} : { problem }) });
      this.nudge = new AbortController();
      await sleep(Math.max(this.backoff.next(), result.problem.retryAfter), signal, this.nudge.signal);
    }
  }

  private async publishOnce(signal: AbortSignal): Promise<{ problem: Problem; live: boolean }> {
    let session: S | undefined;
    let live = false;
    const onPath = (ok: boolean): void => {
      if (live && !signal.aborted) this.onStatus({ state: ok ? 'live' : 'reconnecting' });
    };
    try {
      this.session = session = await this.deps.open(signal, onPath);
      await session.connected;
      live = true;
      this.backoff.reset();
      if (!signal.aborted) this.onStatus({ state: 'live' });
      let next: S | undefined = session;
      while (next !== undefined) {
        this.session = session = next;
        next = await this.moved(session, signal, onPath);
      }
      return { problem: await session.ended, live };
    } catch (err) {
      return { problem: asProblem(err), live };
    } finally {
      this.session = undefined;
      await session?.close(); // the name is free again before the next try
    }
  }

  /** Waits until the server asks for another session and that one sends; undefined when the present one ended before. */
  private async moved(session: S, signal: AbortSignal, onPath: (ok: boolean) => void): Promise<S | undefined> {
    const over = session.ended.then(() => true);
    let gone = await Promise.race([over, session.moving.then(() => false)]);
    while (!gone && !signal.aborted) {
      let next: S | undefined;
      try {
        next = await this.deps.open(signal, onPath);
        await next.connected;
        await sleep(HAND_OVER, signal);
        void session.close();
        return next;
      } catch {
        void next?.close(); // the present one goes on
      }
      gone = await Promise.race([over, sleep(MOVE_AGAIN * (0.5 + Math.random()), signal).then(() => false)]);
    }
    return undefined;
  }
}
