// A publisher of several renditions as pages of others write it, and a viewer by the Ant Media protocol. The test bundles this file and steers it
// through window.layers.

let out; // the publisher's peer connection
let view;
let socket; // the viewer's
const heard = [];
const video = document.querySelector('video');

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

/** A peer connection that offers a picture in one codec, as it is asked for, and sound. */
async function sending({ codec, encodings, width = 1280, height = 720, descriptor = false }) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width, height } });
  out = new RTCPeerConnection();
  out.addTransceiver(media.getAudioTracks()[0], { direction: 'sendonly', streams: [media] });
  const t = out.addTransceiver(media.getVideoTracks()[0], { direction: 'sendonly', streams: [media], sendEncodings: encodings });
  const all = RTCRtpSender.getCapabilities('video').codecs;
  t.setCodecPreferences(all.filter((c) => [`video/${codec}`, 'video/rtx'].includes(c.mimeType)));
  if (descriptor) {
    t.setHeaderExtensionsToNegotiate(t.getHeaderExtensionsToNegotiate().map((x) => (/dependency-descriptor/.test(x.uri) ? { ...x, direction: 'sendrecv' } : x)));
  }
  await out.setLocalDescription();
  return out;
}

/** A socket of the Ant Media protocol; answers has what to do for a command. */
function open(url, answers) {
  const s = new WebSocket(url);
  s.onmessage = ({ data }) => {
    const m = JSON.parse(data);
    heard.push(m);
    answers[m.command]?.(m);
  };
  s.say = (m) => s.send(JSON.stringify(m));
  return new Promise((resolve, reject) => { s.onopen = () => resolve(s); s.onerror = reject; });
}

window.layers = {
  heard,

  /** Publishes by WHIP. */
  async whip(url, how) {
    const pc = await sending(how);
    const r = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
    if (r.status !== 201) throw new Error(`${r.status}: ${await r.text()}`);
    // As our page does: else Chromium may take minutes to find out that there is room for the largest rendition.
    const sdp = (await r.text()).replace(/^(a=rtpmap:(\d+) (?:H264|VP8|VP9|AV1)\/90000)\r$/m, '$1\r\na=fmtp:$2 x-google-start-bitrate=1500\r');
    await pc.setRemoteDescription({ type: 'answer', sdp });
    await connected(pc);
  },

  /** Publishes by the WebSocket. */
  async socket(url, streamId, how) {
    const pc = await sending(how);
    const s = await open(url, {
      start: () => s.say({ command: 'takeConfiguration', streamId, type: 'offer', sdp: pc.localDescription.sdp }),
      takeConfiguration: (m) => pc.setRemoteDescription({ type: 'answer', sdp: m.sdp }),
    });
    s.say({ command: 'publish', streamId, video: true, audio: true });
    await connected(pc);
  },

  /** What has been sent, by rendition: {rid: {bytes, frames, keys, height, mode}}. */
  async sent() {
    const by = {};
    for (const s of (await out.getStats()).values()) {
      if (s.type === 'outbound-rtp' && s.kind === 'video') {
        by[s.rid ?? ''] = { bytes: s.bytesSent, frames: s.framesSent, keys: s.keyFramesEncoded, height: s.frameHeight, mode: s.scalabilityMode, plis: s.pliCount };
      }
    }
    return by;
  },

  /** Sends some renditions and not the others, without a word to the server: what Chromium does when it has no bandwidth or processor for them. */
  async send(rids) {
    const sender = out.getSenders().find((s) => s.track.kind === 'video');
    const p = sender.getParameters();
    p.encodings.forEach((e) => { e.active = rids.includes(e.rid); });
    await sender.setParameters(p);
  },

  /** Plays by the WebSocket; width and height of what is shown are in shown(). */
  async play(url, streamId) {
    view = new RTCPeerConnection();
    view.ontrack = ({ streams }) => { [video.srcObject] = streams; };
    socket = await open(url, {
      takeConfiguration: async (m) => {
        await view.setRemoteDescription({ type: 'offer', sdp: m.sdp });
        await view.setLocalDescription();
        socket.say({ command: 'takeConfiguration', streamId, type: 'answer', sdp: view.localDescription.sdp });
      },
    });
    socket.say({ command: 'play', streamId });
    await connected(view);
  },
  say: (m) => socket.say(m),
  leave() {
    socket.close();
    view.close();
  },

  /** What the viewer has got so far. */
  async shown() {
    const all = [...(await view.getStats()).values()];
    const s = all.find((x) => x.type === 'inbound-rtp' && x.kind === 'video');
    return s && {
      frames: s.framesDecoded, height: s.frameHeight, freezes: s.freezeCount, frozen: s.totalFreezesDuration, plis: s.pliCount, nacks: s.nackCount, bytes: s.bytesReceived,
      dropped: s.framesDropped, codec: all.find((x) => x.id === s.codecId)?.mimeType, at: performance.now(),
    };
  },
};
