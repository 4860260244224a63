/** Waits that grow from `min` to `max` by doubling, ±25 %, so that many pages do not come back at once. */
export class Backoff {
  private step = 0;

  constructor(
    private readonly min = 500,
    private readonly max = 5000,
    private readonly random: () => number = Math.random,
  ) {}

  /** The next wait in milliseconds. */
  next(): number {
    const base = Math.min(this.max, this.min * 2 ** this.step);
    if (base < this.max) this.step++;
    return base * (0.75 + this.random() / 2);
  }

  reset(): void {
    this.step = 0;
  }
}

/** Resolves after `ms` (Infinity: never), or as soon as one of the signals is aborted. Never rejects. */
export function sleep(ms: number, ...signals: AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      for (const s of signals) s.removeEventListener('abort', done);
      resolve();
    };
    const timer = ms === Infinity ? undefined : setTimeout(done, ms);
    for (const s of signals) {
      if (s.aborted) return done();
      s.addEventListener('abort', done);
    }
  });
}
