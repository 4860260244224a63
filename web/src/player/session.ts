/** One WHEP session into a video element. */
import { readLayers, selectionBody, type Layer } from '../wire/layers.js';
import { Link } from '../wire/link.js';
import { Problem } from '../wire/problem.js';
import { withStereo } from '../wire/sdp.js';
import { figuresOf, sampleOf, StallDetector, type Entry, type Figures, type Sample, type StallLimits } from '../wire/stats.js';
import type { Chosen } from './chosen.js';
import type { WatchSession } from './watcher.js';

/**
 * Media that stays away (ms): for how long before the first picture, and after it. A node that died is found by asking for the session; while the
 * path is good it is the publisher that is missing, whom the server waits for. Not all viewers of a stream ask in the same moment.
 */
const stallLimits = (): StallLimits => ({ first: 8000, ask: 500 + 500 * Math.random(), over: 3000, quiet: 12_000 });
const POLL_EVERY = 500;
/** Figures are shown every so many polls: numbers that change faster can't be read. */
const FIGURES_EVERY = 2;

export interface SessionOptions {
  endpoint: string;
  token: string;
  signal: AbortSignal;
  /** Another session has the screen until this one has media. */
  beside: boolean;
  chosen: Chosen;
  /** The renditions of the stream have changed. */
  onLayers(layers: Layer[]): void;
  /** Shows the stream; resolves when its frames advance. */
  attach(stream: MediaStream): Promise<void>;
  onFigures(f: Figures): void;
  onPath(ok: boolean): void;
  /** The picture is about to go: keep its last frame. */
  onClosing(): void;
}

/** Opens a session; returns when the server has answered. Throws a Problem. */
export async function openSession(o: SessionOptions): Promise<WatchSession> {
  if (typeof RTCPeerConnection === 'undefined') throw new Problem('unsupported_browser');
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const stream = new MediaStream();
  for (const kind of ['video', 'audio'] as const) {
    const { receiver } = pc.addTransceiver(kind, { direction: 'recvonly' });
    playAtOnce(receiver);
  }
  pc.ontrack = (e) => stream.addTrack(e.track);
  const screen = { left: false };
  const layers = new LayerList(screen, o.onLayers);
  const link = await Link.open({
    endpoint: o.endpoint,
    token: o.token,
    pc,
    signal: o.signal,
    trickleAfter: 1000, // the server knows us from our checks; candidates help only where those do not arrive
    restarts: false,
    prepare: withStereo,
    onLayers: (data) => layers.read(data),
    onPath: (ok) => void (screen.left || o.onPath(ok)),
    onClosing: () => void (screen.left || o.onClosing()),
  });
  return new PlaySession(pc, link, stream, o, screen, layers);
}

/** The renditions of a session's stream; those of the session that has the screen are shown. */
class LayerList {
  list: Layer[] = [];
  changed: () => void = () => {};

  constructor(private readonly screen: { left: boolean }, private readonly show: (layers: Layer[]) => void) {}

  read(data: string): void {
    this.list = readLayers(data);
    if (!this.screen.left) this.show(this.list);
    this.changed();
  }
}

/** Resolves when the picture arrives, or the sound where there is no picture. */
function mediaArrives(pc: RTCPeerConnection): Promise<void> {
  const coming = pc.getTransceivers().filter((t) => t.currentDirection === 'recvonly').map((t) => t.receiver.track);
  const track = coming.find((t) => t.kind === 'video') ?? coming[0];
  if (track === undefined || !track.muted) return Promise.resolve();
  return new Promise((resolve) => track.addEventListener('unmute', () => resolve(), { once: true }));
}

/** Live means now: ask for the smallest buffer the network allows. */
function playAtOnce(receiver: RTCRtpReceiver): void {
  const r = receiver as RTCRtpReceiver & { jitterBufferTarget?: number | null; playoutDelayHint?: number | null };
  if ('jitterBufferTarget' in r) r.jitterBufferTarget = 0;
  if ('playoutDelayHint' in r) r.playoutDelayHint = 0;
}

class PlaySession implements WatchSession {
  readonly started: Promise<void>;
  readonly ended: Promise<Problem>;
  readonly moving: Promise<void>;
  private readonly timer: ReturnType<typeof setInterval>;
  private stall = new StallDetector(stallLimits());
  private readonly stop = new AbortController();
  private asked = '{}'; // what the server has
  private prev: Sample | undefined;
  private polls = 0;
  private polled = 0; // bytes
  private first!: () => void;
  private over!: (why: Problem) => void;
  private playing = false;

  constructor(
    private readonly pc: RTCPeerConnection,
    private readonly link: Link,
    stream: MediaStream,
    private readonly o: SessionOptions,
    private readonly screen: { left: boolean },
    private readonly layers: LayerList,
  ) {
    this.layers.changed = () => this.choose();
    o.chosen.onChange(() => this.choose(), this.stop.signal);
    this.choose();
    this.moving = link.moving;
    const media = new Promise<void>((resolve) => (this.first = resolve));
    this.started = Promise.race([media, link.connected.then(() => media)]);
    this.started.catch(() => {}); // ended says it too
    const stalled = new Promise<Problem>((resolve) => (this.over = resolve));
    this.ended = Promise.race([link.ended, stalled, link.connected.then(() => stalled, (p: Problem) => p)]);
    void (o.beside ? mediaArrives(pc).then(() => this.show(stream)) : this.show(stream));
    this.timer = setInterval(() => void this.poll(), POLL_EVERY);
  }

  close(quietly = false): void {
    this.screen.left ||= quietly;
    clearInterval(this.timer);
    this.stop.abort();
    void this.link.close();
  }

  /** Tells the server what the viewer wants, when that is news. */
  private choose(): void {
    const want = selectionBody(this.o.chosen.selection, this.layers.list);
    if (want === this.asked) return;
    this.asked = want;
    this.stall = new StallDetector(stallLimits()); // what is switched on again takes a moment
    void this.link.choose(want);
  }

  /** The last frame of the session before stays until the first of this one. */
  private async show(stream: MediaStream): Promise<void> {
    if (this.screen.left) return;
    if (this.o.beside) this.o.onClosing();
    await this.o.attach(stream);
    this.begin();
  }

  private begin(): void {
    this.playing = true;
    this.first();
  }

  private async poll(): Promise<void> {
    const entries: Entry[] = [];
    (await this.pc.getStats()).forEach((e: Entry) => entries.push(e));
    const now = sampleOf(entries, performance.now());
    const stall = this.o.chosen.selection.enabled ? this.stall.feed(now) : 'none';
    if (stall === 'over') this.over(new Problem('no_media', 'no media arrives'));
    else if (stall === 'ask') void this.link.ask();
    // Sound alone never makes a frame, and a paused element or a hidden page shows none.
    if (!this.playing && this.polled > 0 && this.polled < now.bytes) this.begin();
    this.polled = now.bytes;
    if (this.polls++ % FIGURES_EVERY !== 0 || this.screen.left) return;
    if (this.prev !== undefined) this.o.onFigures(figuresOf(entries, this.prev, now));
    this.prev = now;
  }
}
