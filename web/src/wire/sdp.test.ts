import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyFragment, readFragment, withStartBitrate, withStereo, writeFragment } from './sdp.js';

const crlf = (...l: string[]): string => l.join('\r\n') + '\r\n';

const sdp = crlf(
  'v=0', 'o=- 1 2 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=group:BUNDLE 0 1', 'a=ice-lite',
  'm=audio 9 UDP/TLS/RTP/SAVPF 111 0', 'c=IN IP4 0.0.0.0', 'a=ice-ufrag:old1', 'a=ice-pwd:oldpassword', 'a=mid:0',
  'a=rtpmap:111 opus/48000/2', 'a=fmtp:111 minptime=10;useinbandfec=1', 'a=rtpmap:0 PCMU/8000',
  'a=candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host', 'a=end-of-candidates',
  'm=video 9 UDP/TLS/RTP/SAVPF 102 103 96', 'c=IN IP4 0.0.0.0', 'a=ice-ufrag:old1', 'a=ice-pwd:oldpassword', 'a=mid:1',
  'a=rtpmap:102 H264/90000', 'a=fmtp:102 packetization-mode=1', 'a=rtpmap:103 rtx/90000', 'a=fmtp:103 apt=102',
  'a=rtpmap:96 VP8/90000',
);

test('a fragment carries group, credentials and the candidates of each section', () => {
  const body = writeFragment(sdp, [{ candidate: 'candidate:7 1 udp 1 198.51.100.7 4000 typ host', mid: '0' }], true);
  assert.equal(body, crlf(
    'a=group:BUNDLE 0 1', 'm=audio 9 UDP/TLS/RTP/SAVPF 111 0', 'a=mid:0', 'a=ice-ufrag:old1', 'a=ice-pwd:oldpassword',
    'a=candidate:7 1 udp 1 198.51.100.7 4000 typ host', 'a=end-of-candidates',
  ));
});

test('a fragment without candidates still carries the credentials, once', () => {
  const body = writeFragment(sdp, [], false);
  assert.equal(body.match(/a=ice-ufrag:/g)?.length, 1);
  assert.doesNotMatch(body, /candidate/);
});

for (const [name, text] of [
  ['above the sections', crlf('a=ice-ufrag:new1', 'a=ice-pwd:newpassword', 'm=audio 9 X 0', 'a=mid:0', 'a=candidate:9 1 udp 1 192.0.2.9 50000 typ host')],
  ['in the sections', crlf('m=audio 9 X 0', 'a=mid:0', 'a=ice-ufrag:new1', 'a=ice-pwd:newpassword', 'a=candidate:9 1 udp 1 192.0.2.9 50000 typ host')],
  ['without a mid, with bare line feeds', 'a=ice-ufrag:new1\na=ice-pwd:newpassword\na=candidate:9 1 udp 1 192.0.2.9 50000 typ host\n'],
] as const) {
  test(`a restart's answer replaces credentials and candidates: ${name}`, () => {
    const out = applyFragment(sdp, readFragment(text));
    assert.doesNotMatch(out, /old1|oldpassword|192\.0\.2\.1 /);
    assert.equal(out.match(/a=ice-ufrag:new1\r\n/g)?.length, 2);
    assert.equal(out.match(/192\.0\.2\.9/g)?.length, 1);
    assert.ok(out.indexOf('192.0.2.9') < out.indexOf('m=video'), 'the candidate belongs to the first section');
    assert.match(out, /a=ice-lite\r\n/);
    assert.match(out, /a=fmtp:102 packetization-mode=1\r\n/);
  });
}

test('a restart answered without candidates keeps the old ones', () => {
  const out = applyFragment(sdp, readFragment(crlf('a=ice-lite', 'a=ice-ufrag:new1', 'a=ice-pwd:newpassword')));
  assert.match(out, /a=candidate:1 1 udp 2130706431 192\.0\.2\.1 50000 typ host\r\n/);
  assert.doesNotMatch(out, /old1|oldpassword/);
});

test('a restart answered without credentials is an error', () => {
  assert.throws(() => readFragment('a=mid:0\r\n'), /without credentials/);
});

test('stereo is asked for once, of Opus only', () => {
  const once = withStereo(sdp);
  assert.match(once, /a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n/);
  assert.match(once, /a=fmtp:102 packetization-mode=1\r\n/);
  assert.equal(withStereo(once), once);
});

test('the start bitrate is given for each video format, and not for retransmission or sound', () => {
  const out = withStartBitrate(sdp, 1500);
  assert.match(out, /a=fmtp:102 packetization-mode=1;x-google-start-bitrate=1500\r\n/);
  assert.match(out, /a=rtpmap:96 VP8\/90000\r\na=fmtp:96 x-google-start-bitrate=1500\r\n/);
  assert.match(out, /a=fmtp:103 apt=102\r\n/);
  assert.match(out, /a=fmtp:111 minptime=10;useinbandfec=1\r\n/);
});
