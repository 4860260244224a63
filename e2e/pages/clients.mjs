// Clients that are not ours, as their users call them. The test bundles this file and steers it through window.clients.

import { WebRTCPlayer } from '@eyevinn/webrtc-player';
import { WHIPClient } from '@eyevinn/whip-web-client';

const video = document.querySelector('video');
const camera = (kinds) => navigator.mediaDevices.getUserMedia({ video: kinds.video ?? true, audio: kinds.audio ?? true });
let whip;
let player;
let plain; // a peer connection without any client's code

function connected(pc) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (pc.connectionState === 'connected') resolve();
      if (pc.connectionState === 'failed') reject(new Error('ICE or DTLS failed'));
    };
    pc.addEventListener('connectionstatechange', look);
    look();
  });
}

window.clients = {
  /** Publishes with @eyevinn/whip-web-client; resolves with the ms until connected. */
  async publish(endpoint, { kinds = {}, ...opts } = {}) {
    const media = await camera(kinds);
    const began = performance.now();
    whip = new WHIPClient({ endpoint, opts: { iceServers: [], ...opts } });
    await whip.setIceServersFromEndpoint();
    await whip.ingest(media);
    await connected(whip.peer);
    return performance.now() - began;
  },
  unpublish: () => whip.destroy(),

  /** Plays with @eyevinn/webrtc-player; authKey is the whole Authorization header. */
  play(url, authKey) {
    player = new WebRTCPlayer({ video, type: 'whep', iceServers: [] });
    for (const trouble of ['no-media', 'peer-connection-failed', 'initial-connection-failed', 'connect-error']) {
      player.on(trouble, () => console.error(trouble));
    }
    return player.load(new URL(url), authKey);
  },
  unplay: () => player.unload(),

  /** Publishes with the browser's own means; several encodings are simulcast, as conference clients do it. Chromium sends three of a large picture only. */
  async publishPlain(url, sendEncodings) {
    const media = await camera({ audio: true, video: sendEncodings && { width: 1280, height: 720 } });
    plain = new RTCPeerConnection();
    plain.addTransceiver(media.getAudioTracks()[0], { direction: 'sendonly', streams: [media] });
    plain.addTransceiver(media.getVideoTracks()[0], { direction: 'sendonly', streams: [media], sendEncodings });
    await plain.setLocalDescription();
    const r = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: plain.localDescription.sdp });
    plain.resource = { url: new URL(r.headers.get('Location'), url).href, etag: r.headers.get('ETag') };
    await plain.setRemoteDescription({ type: 'answer', sdp: await r.text() });
    await connected(plain);
  },

  /** Restarts ICE of what publishPlain opened, with what the server says to that and nothing of its first answer's ICE. */
  async restart() {
    await plain.setLocalDescription(await plain.createOffer({ iceRestart: true }));
    const offer = plain.localDescription.sdp;
    const line = (name) => new RegExp(`^a=${name}:.*$`, 'm').exec(offer)[0];
    const r = await fetch(plain.resource.url, {
      method: 'PATCH', headers: { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': '*' },
      body: `${line('ice-ufrag')}\r\n${line('ice-pwd')}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n`,
    });
    const fragment = (await r.text()).split('\r\n');
    const of = (name) => fragment.filter((l) => l.startsWith(`a=${name}`));
    const [head, ...sections] = plain.currentRemoteDescription.sdp.split(/(?=^m=)/m);
    const bare = (s) => s.split('\r\n').filter((l) => l && !/^a=(ice-ufrag|ice-pwd|candidate|end-of-candidates)/.test(l));
    const answer = [...bare(head), ...sections.flatMap((s, i) => [...bare(s), ...of('ice-ufrag'), ...of('ice-pwd'), ...(i === 0 ? of('candidate') : [])])];
    await plain.setRemoteDescription({ type: 'answer', sdp: `${answer.join('\r\n')}\r\n` });
    return { status: r.status, etag: [plain.resource.etag, r.headers.get('ETag')], candidates: of('candidate').length };
  },

  /** The transport of publishPlain, and the layers that it sends. */
  async path() {
    const stats = [...(await plain.getStats()).values()];
    const transport = stats.find((s) => s.type === 'transport');
    const layers = stats.filter((s) => s.type === 'outbound-rtp' && s.kind === 'video' && s.bytesSent > 0).length;
    return { state: plain.iceConnectionState, ufrag: transport.iceLocalUsernameFragment, bytes: transport.bytesSent, layers };
  },

  /** What the player has got so far. */
  async watched() {
    const out = { frames: 0, width: video.videoWidth, height: video.videoHeight, time: video.currentTime, sound: 0, codecs: [] };
    const stats = player ? await player.peer.getStats() : new Map();
    for (const s of stats.values()) {
      if (s.type !== 'inbound-rtp') continue;
      if (s.kind === 'video') out.frames = s.framesDecoded;
      else out.sound = s.totalSamplesReceived - s.concealedSamples;
      const codec = stats.get(s.codecId);
      if (codec) out.codecs.push(codec.mimeType);
    }
    return out;
  },
};
