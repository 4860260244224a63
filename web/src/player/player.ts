/** The player as both pages use it: address in, moving picture out. */
import { socketUrl, validId, whepUrl, type Address } from '../wire/address.js';
import { Problem } from '../wire/problem.js';
import { waitForStart } from '../wire/waiter.js';
import { Chosen, pauseWhenHidden } from './chosen.js';
import { openSession } from './session.js';
import { View } from './view.js';
import { Watcher, type WatchStatus } from './watcher.js';

export interface PlayerOptions {
  address: Address;
  autoplay: boolean;
  muted: boolean;
  /** The picture, not the sound, is not sent while nobody sees the page. */
  pauseHidden: boolean;
}

/** What the page's address says beside the stream. */
export function readOptions(loc: { search: string }): Omit<PlayerOptions, 'address'> {
  const q = new URLSearchParams(loc.search);
  return { autoplay: q.get('autoplay') !== 'false', muted: q.get('mute') !== 'false', pauseHidden: q.get('pauseHidden') === 'true' };
}

/** Starts the player in `root`; it looks after itself until the page goes. */
export function startPlayer(root: HTMLElement, o: PlayerOptions): void {
  const { address } = o;
  const opened = performance.now();
  const chosen = new Chosen();
  const view: View = new View(root, {
    streamId: address.id,
    muted: o.muted,
    chosen,
    onRetry: () => watcher.retryNow(),
    // For measuring: milliseconds from the page's first script to the first picture.
    onFirstFrame: () => (document.body.dataset['firstFrameMs'] ??= (performance.now() - opened).toFixed(0)),
    onStart: () => watcher.start(),
  });
  const watcher: Watcher = new Watcher({
    open: (signal, beside) => openSession({
      endpoint: whepUrl(address),
      token: address.token,
      signal,
      beside,
      chosen,
      onLayers: (layers) => view.setLayers(layers),
      attach: (stream) => view.attach(stream),
      onFigures: (f) => view.setFigures(f),
      onPath: (ok) => view.setPath(ok),
      onClosing: () => view.freeze(),
    }),
    waitForStart: (signal) =>
      waitForStart({ url: socketUrl(address, location), streamId: address.id, token: address.token, signal }),
  }, (s: WatchStatus) => view.setStatus(s));
  if (o.pauseHidden) pauseWhenHidden(chosen, view.video);
  if (!validId(address.id)) {
    view.setStatus({ state: 'error', problem: new Problem('bad_name'), retrying: false, seen: false });
    return;
  }
  if (o.autoplay) watcher.start();
  else view.askToStart();
  addEventListener('online', () => watcher.retryNow());
  addEventListener('pagehide', () => void watcher.stop());
  addEventListener('pageshow', (e) => {
    if (e.persisted) watcher.start(); // back from the browser's page cache
  });
}
