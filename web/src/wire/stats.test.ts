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

test('a stall is as long as the counter stands still', () => {
  let now = 0;
  const d = new StallDetector(() => now);
  assert.equal(d.feed(10), 0);
  now = 2500;
  assert.equal(d.feed(10), 2500);
  assert.equal(d.feed(11), 0);
  now = 6000;
  assert.equal(d.feed(11), 3500);
});
