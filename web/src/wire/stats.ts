/** Live figures from getStats(): two snapshots a while apart become what people read. */

export interface Figures {
  width: number;
  height: number;
  fps: number;
  kbps: number;
  codec: string;
  /** undefined while nothing has been measured. */
  rttMs?: number | undefined;
  lossPercent?: number | undefined;
  lost: number;
  /** How long frames wait in the jitter buffer; viewers only. */
  bufferMs?: number | undefined;
  /** What holds a publisher's quality down: "cpu" or "bandwidth". */
  limitedBy: string;
}

/** Counters of one snapshot, summed over the tracks. */
export interface Sample {
  time: number; // ms
  bytes: number;
  packets: number;
  lost: number;
  bufferDelay: number; // s, summed over frames
  bufferCount: number;
  frames: number;
  answers: number; // to the checks of the path
}

/** getStats() entries, with the members that differ by type. */
export type Entry = { id: string; type: string } & Record<string, unknown>;

const num = (e: Entry | undefined, key: string): number => {
  const v = e?.[key];
  return typeof v === 'number' ? v : 0;
};
const text = (e: Entry | undefined, key: string): string => {
  const v = e?.[key];
  return typeof v === 'string' ? v : '';
};

export function sampleOf(entries: readonly Entry[], time: number): Sample {
  const s: Sample = { time, bytes: 0, packets: 0, lost: 0, bufferDelay: 0, bufferCount: 0, frames: 0, answers: 0 };
  for (const e of entries) {
    if (e.type === 'inbound-rtp') {
      s.bytes += num(e, 'bytesReceived');
      s.packets += num(e, 'packetsReceived');
      s.lost += Math.max(0, num(e, 'packetsLost')); // duplicates make it negative
      if (e['kind'] === 'video') {
        s.bufferDelay += num(e, 'jitterBufferDelay');
        s.bufferCount += num(e, 'jitterBufferEmittedCount');
        s.frames += num(e, 'framesDecoded');
      }
    } else if (e.type === 'outbound-rtp') {
      s.bytes += num(e, 'bytesSent');
      s.packets += num(e, 'packetsSent');
      if (e['kind'] === 'video') s.frames = Math.max(s.frames, num(e, 'framesEncoded')); // of several renditions, the one that began first
    } else if (e.type === 'remote-inbound-rtp') {
      s.lost += Math.max(0, num(e, 'packetsLost'));
    } else if (e.type === 'candidate-pair') {
      s.answers += num(e, 'responsesReceived');
    }
  }
  return s;
}

/** What happened between two samples. */
export function figuresOf(entries: readonly Entry[], prev: Sample, now: Sample): Figures {
  const seconds = Math.max(0.001, (now.time - prev.time) / 1000);
  const video = largest(entries.filter((e) => e['kind'] === 'video' && (e.type === 'inbound-rtp' || e.type === 'outbound-rtp')));
  const codec = entries.find((e) => e.id === video?.['codecId']);
  const packets = now.packets - prev.packets;
  const lost = Math.max(0, now.lost - prev.lost);
  const inbound = entries.some((e) => e.type === 'inbound-rtp');
  const expected = packets + (inbound ? lost : 0); // a sender's packets already include those that were lost
  const buffered = now.bufferCount - prev.bufferCount;
  const rtt = roundTrip(entries);
  return {
    width: num(video, 'frameWidth'),
    height: num(video, 'frameHeight'),
    fps: Math.max(0, now.frames - prev.frames) / seconds,
    kbps: (Math.max(0, now.bytes - prev.bytes) * 8) / 1000 / seconds,
    codec: text(codec, 'mimeType').replace(/^video\//i, ''),
    rttMs: rtt,
    lossPercent: expected > 0 ? Math.min(100, (lost / expected) * 100) : undefined,
    lost: now.lost,
    bufferMs: buffered > 0 ? ((now.bufferDelay - prev.bufferDelay) / buffered) * 1000 : undefined,
    limitedBy: text(video, 'qualityLimitationReason').replace('none', ''),
  };
}

/** Of several renditions that are sent, the one that shows most. */
function largest(video: readonly Entry[]): Entry | undefined {
  const sent = video.filter((e) => e['active'] !== false);
  return (sent.length > 0 ? sent : video).reduce<Entry | undefined>((a, e) => (a === undefined || num(e, 'frameHeight') > num(a, 'frameHeight') ? e : a), undefined);
}

function roundTrip(entries: readonly Entry[]): number | undefined {
  const transport = entries.find((e) => e.type === 'transport');
  const pair =
    entries.find((e) => e.id === transport?.['selectedCandidatePairId']) ??
    entries.find((e) => e.type === 'candidate-pair' && e['nominated'] === true && e['state'] === 'succeeded');
  const rtt = pair?.['currentRoundTripTime'];
  return typeof rtt === 'number' ? rtt * 1000 : undefined;
}

/** What to do about media that has stopped. */
export type Stall = 'none' | 'ask' | 'over';

export interface StallLimits {
  first: number; // before any media came
  ask: number; // after that, the server is asked whether it still has the session
  over: number; // the session is given up
  quiet: number; // the same while the path is known to be good: then it is the publisher that is missing
}

/** Tells when media has stopped, and whose fault it may be. All times in milliseconds. */
export class StallDetector {
  private bytes = -1;
  private answers = 0;
  private since = 0;
  private asked = 0;

  constructor(
    private readonly limits: StallLimits,
    private readonly now: () => number = () => performance.now(),
  ) {}

  feed(s: Pick<Sample, 'bytes' | 'answers'>): Stall {
    const t = this.now();
    if (s.bytes !== this.bytes) {
      this.bytes = s.bytes;
      this.answers = s.answers;
      this.since = this.asked = t;
    }
    const still = t - this.since;
    if (s.bytes === 0) return still >= this.limits.first ? 'over' : 'none';
    if (still >= (s.answers > this.answers ? this.limits.quiet : this.limits.over)) return 'over';
    // The first question comes soon; a server that said yes is asked again after some time.
    if (still < this.limits.ask || (this.asked !== this.since && t - this.asked < this.limits.over)) return 'none';
    this.asked = t;
    return 'ask';
  }
}
