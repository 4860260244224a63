/** What the viewer has chosen, for all sessions: one that is opened later does as he said. */
import type { Selection } from '../wire/layers.js';

export class Chosen {
  private now: Selection = { rid: '', enabled: true };
  private readonly listeners = new Set<() => void>();

  get selection(): Selection {
    return this.now;
  }

  set(change: Partial<Selection>): void {
    const next = { ...this.now, ...change };
    if (next.rid === this.now.rid && next.enabled === this.now.enabled) return;
    this.now = next;
    for (const f of this.listeners) f();
  }

  /** Calls f at each change, until the signal. */
  onChange(f: () => void, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.listeners.add(f);
    signal.addEventListener('abort', () => this.listeners.delete(f), { once: true });
  }
}

/** The picture is not asked for while nobody sees the page; one in a window of its own is seen. */
export function pauseWhenHidden(chosen: Chosen, video: HTMLVideoElement): void {
  const look = (): void => chosen.set({ enabled: !document.hidden || document.pictureInPictureElement === video });
  document.addEventListener('visibilitychange', look);
  for (const e of ['enterpictureinpicture', 'leavepictureinpicture']) video.addEventListener(e, look);
  look();
}
