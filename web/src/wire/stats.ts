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
  const s: Sample = { time, bytes: 0, packets: 0, lost: 0, bufferDelay: 0, bufferCount: 0, frames: 0 };
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
      if (e['kind'] === 'video') s.frames += num(e, 'framesEncoded');
    } else if (e.type === 'remote-inbound-rtp') {
      s.lost += Math.max(0, num(e, 'packetsLost'));
    }
  }
  return s;
}

/** What happened between two samples. */
export function figuresOf(entries: readonly Entry[], prev: Sample, now: Sample): Figures {
  const seconds = Math.max(0.001, (now.time - prev.time) / 1000);
  const video = entries.find((e) => e['kind'] === 'video' && (e.type === 'inbound-rtp' || e.type === 'outbound-rtp'));
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

function roundTrip(entries: readonly Entry[]): number | undefined {
  const transport = entries.find((e) => e.type === 'transport');
  const pair =
    entries.find((e) => e.id === transport?.['selectedCandidatePairId']) ??
    entries.find((e) => e.type === 'candidate-pair' && e['nominated'] === true && e['state'] === 'succeeded');
  const rtt = pair?.['currentRoundTripTime'];
  return typeof rtt === 'number' ? rtt * 1000 : undefined;
}

/** Tells when media has stopped: no new byte for `limit` milliseconds. */
export class StallDetector {
  private bytes = -1;
  private since = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /** Takes the byte counter; returns for how many milliseconds it has stood still. */
  feed(bytes: number): number {
    const t = this.now();
    if (bytes !== this.bytes) {
      this.bytes = bytes;
      this.since = t;
    }
    return t - this.since;
  }
}
