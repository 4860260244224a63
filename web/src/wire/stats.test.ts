import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figuresOf, sampleOf, StallDetector, type Entry } from './stats.js';

const viewer = (n: number, lost: number): Entry[] => [
  { id: 'T', type: 'transport', selectedCandidatePairId: 'P2' },
  { id: 'P1', type: 'candidate-pair', nominated: true, state: 'succeeded', currentRoundTripTime: 9 },
  { id: 'P2', type: 'candidate-pair', nominated: true, state: 'succeeded', currentRoundTripTime: 0.012 },
  { id: 'C', type: 'codec', mimeType: 'video/H264' },
  {
    id: 'V', type: 'inbound-rtp', kind: 'video', codecId: 'C', frameWidth: 1280, frameHeight: 720,
    bytesReceived: n * 300_000, packetsReceived: n * 297, packetsLost: lost, framesDecoded: n * 30,
    jitterBufferDelay: n * 0.6, jitterBufferEmittedCount: n * 30,
  },
  { id: 'A', type: 'inbound-rtp', kind: 'audio', bytesReceived: n * 12_500, packetsReceived: 0, packetsLost: -2, jitterBufferDelay: 99 },
];

test('a viewer reads size, frames, bitrate, round trip, loss and buffer delay', () => {
  const before = sampleOf(viewer(10, 5), 10_000);
  const f = figuresOf(viewer(12, 11), before, sampleOf(viewer(12, 11), 12_000));
  assert.equal(`${f.width}x${f.height} ${f.codec}`, '1280x720 H264');
  assert.equal(f.fps, 30);
  assert.equal(f.kbps, 2500);
  assert.equal(f.rttMs, 12);
  assert.equal(f.lossPercent, 1); // 6 of 594 + 6
  assert.equal(Math.round(f.bufferMs ?? 0), 20);
});

test('nothing received is no loss, and no division by zero', () => {
  const s = sampleOf([], 0);
  const f = figuresOf([], s, s);
  assert.deepEqual([f.fps, f.kbps, f.lossPercent, f.bufferMs, f.rttMs, f.codec], [0, 0, undefined, undefined, undefined, '']);
});

test('a publisher reads its loss from the receiver reports', () => {
  const at = (n: number, lost: number): Entry[] => [
    { id: 'V', type: 'outbound-rtp', kind: 'video', bytesSent: n * 1000, packetsSent: n * 100, framesEncoded: n * 25, qualityLimitationReason: 'bandwidth' },
    { id: 'R', type: 'remote-inbound-rtp', kind: 'video', packetsLost: lost },
  ];
  const f = figuresOf(at(2, 8), sampleOf(at(1, 3), 0), sampleOf(at(2, 8), 1000));
  assert.deepEqual([f.lossPercent, f.fps, f.limitedBy], [5, 25, 'bandwidth']);
});

const limits = { first: 8000, ask: 700, over: 3000, quiet: 12_000 };

/** Feeds counters at moments; what the detector said of each. */
function stalls(...steps: [at: number, bytes: number, answers: number][]): string[] {
  let now = 0;
  const d = new StallDetector(limits, () => now);
  return steps.map(([at, bytes, answers]) => {
    now = at;
    return d.feed({ bytes, answers });
  });
}

test('media that stops makes the player ask for its session, and give it up after a while', () => {
  assert.deepEqual(stalls([0, 10, 1], [500, 10, 1], [1000, 10, 1], [1500, 10, 1], [2500, 10, 1], [3000, 10, 1]), ['none', 'none', 'ask', 'none', 'none', 'over']);
});

test('media that comes again begins a new stall', () => {
  assert.deepEqual(stalls([0, 10, 1], [2500, 10, 1], [3100, 11, 1], [6000, 11, 1], [6100, 11, 1]), ['none', 'ask', 'none', 'ask', 'over']);
});

test('while the path answers the server is waited for, and asked now and then', () => {
  assert.deepEqual(stalls([0, 10, 1], [1000, 10, 1], [3500, 10, 2], [4000, 10, 2], [11_000, 10, 5], [12_000, 10, 5]), ['none', 'ask', 'none', 'ask', 'ask', 'over']);
});

test('before any media there is nothing to ask for', () => {
  assert.deepEqual(stalls([0, 0, 0], [5000, 0, 2], [8000, 0, 3]), ['none', 'none', 'over']);
});
