/** One WHIP session from camera, microphone or screen. */
import { Link } from '../wire/link.js';
import { Problem } from '../wire/problem.js';
import { withStartBitrate } from '../wire/sdp.js';
import { figuresOf, sampleOf, type Entry, type Figures, type Sample } from '../wire/stats.js';
import type { PublishSession } from './publisher.js';
import { encodingsOf, type Quality } from './quality.js';

const POLL_EVERY = 1000;
/** A first picture that is good, on networks that are not (kbit/s); of several renditions the smaller ones come first. */
const START_LIMIT = 2500;
const START_LIMIT_SEVERAL = 3500;
/** Plenty for voice; music at 96 kbit/s stereo is transparent for most. */
const AUDIO_BITRATE = 96_000;

export interface SendOptions {
  endpoint: string;
  token: string;
  video: MediaStreamTrack | null;
  audio: MediaStreamTrack | null;
  quality: Quality;
  /** Three renditions of the picture instead of one. */
  several: boolean;
  onFigures(f: Figures): void;
}

/** Sound goes twice (RFC 2198): a packet that is lost on the way comes with the next one. */
function preferRedundancy(t: RTCRtpTransceiver): void {
  const codecs = globalThis.RTCRtpSender?.getCapabilities?.('audio')?.codecs ?? [];
  const red = codecs.filter((c) => c.mimeType.toLowerCase() === 'audio/red');
  if (red.length === 0 || !('setCodecPreferences' in t)) return;
  t.setCodecPreferences([...red, ...codecs.filter((c) => !red.includes(c))]);
}

export class SendSession implements PublishSession {
  readonly connected: Promise<void>;
  readonly ended: Promise<Problem>;
  readonly moving: Promise<void>;
  private readonly timer: ReturnType<typeof setInterval>;
  private prev: Sample | undefined;
  private paused: readonly string[] = [];
  private changing: Promise<void> = Promise.resolve();

  /** Posts the offer; returns when the server has answered. Throws a Problem. */
  static async open(o: SendOptions, signal: AbortSignal, onPath: (ok: boolean) => void): Promise<SendSession> {
    if (o.video === null && o.audio === null) throw new Problem('nothing_to_send');
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const streams = [new MediaStream()]; // one msid, so that players keep lips and voice together
    if (o.audio !== null) {
      preferRedundancy(pc.addTransceiver(o.audio, { direction: 'sendonly', streams, sendEncodings: [{ maxBitrate: AUDIO_BITRATE }] }));
    }
    const encodings = encodingsOf(o.quality, o.several);
    if (o.video !== null) pc.addTransceiver(o.video, { direction: 'sendonly', streams, sendEncodings: encodings });
    const most = encodings.reduce((sum, e) => sum + (e.maxBitrate ?? 0), 0) / 1000;
    let session: SendSession | undefined;
    let paused: string[] = [];
    const link = await Link.open({
      endpoint: o.endpoint,
      token: o.token,
      pc,
      signal,
      trickleAfter: 0,
      restarts: true,
      prepareAnswer: (sdp) => withStartBitrate(sdp, Math.min(most, o.several ? START_LIMIT_SEVERAL : START_LIMIT)),
      onPath,
      onPaused: (rids) => {
        paused = rids;
        session?.pause(rids);
      },
    });
    session = new SendSession(pc, link, o);
    session.paused = paused;
    await session.setQuality(o.quality);
    return session;
  }

  private constructor(private readonly pc: RTCPeerConnection, private readonly link: Link, private readonly o: SendOptions) {
    this.connected = link.connected;
    this.ended = link.ended;
    this.moving = link.moving;
    this.timer = setInterval(() => void this.poll(), POLL_EVERY);
  }

  close(): Promise<void> {
    clearInterval(this.timer);
    return this.link.close();
  }

  /** Sends another track in place of the present one; false when the session has none of that kind. */
  async replace(kind: 'video' | 'audio', track: MediaStreamTrack | null): Promise<boolean> {
    const sender = this.sender(kind);
    if (sender === undefined) return track === null;
    await sender.replaceTrack(track);
    return true;
  }

  setQuality(q: Quality): Promise<void> {
    return this.change((p, sender) => {
      // A screen must stay readable; a camera must stay smooth.
      p.degradationPreference = sender.track?.contentHint === 'detail' ? 'maintain-resolution' : 'maintain-framerate';
      const wanted = encodingsOf(q, p.encodings.length > 1);
      p.encodings.forEach((e, i) => {
        const { maxBitrate, maxFramerate } = wanted[i] ?? {};
        Object.assign(e, { maxBitrate, maxFramerate });
      });
      this.markPaused(p);
    });
  }

  /** Stops sending some renditions and sends the others (again). */
  pause(rids: readonly string[]): void {
    this.paused = rids;
    void this.change((p) => this.markPaused(p));
  }

  private markPaused(p: RTCRtpSendParameters): void {
    if (p.encodings.length < 2) return;
    for (const e of p.encodings) e.active = !this.paused.includes(e.rid ?? '');
  }

  /** One change at a time: parameters that were read before another change are refused. */
  private change(how: (p: RTCRtpSendParameters, sender: RTCRtpSender) => void): Promise<void> {
    const sender = this.sender('video');
    if (sender === undefined) return Promise.resolve();
    this.changing = this.changing.then(() => {
      const p = sender.getParameters();
      how(p, sender);
      return sender.setParameters(p).catch(() => {}); // older browsers refuse members they don't know: their defaults hold
    });
    return this.changing;
  }

  private sender(kind: 'video' | 'audio'): RTCRtpSender | undefined {
    return this.pc.getTransceivers().find((t) => t.receiver.track.kind === kind)?.sender;
  }

  private async poll(): Promise<void> {
    const entries: Entry[] = [];
    (await this.pc.getStats()).forEach((e: Entry) => entries.push(e));
    const now = sampleOf(entries, performance.now());
    if (this.prev !== undefined) this.o.onFigures(figuresOf(entries, this.prev, now));
    this.prev = now;
  }
}
