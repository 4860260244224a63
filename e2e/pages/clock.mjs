// Publishes a canvas by WHIP that shows the time: the low 24 bits of Date.now() as black and white squares, in
// two rows of twelve. A viewer's page reads them back from its picture.

const canvas = document.querySelector('canvas');
const ink = canvas.getContext('2d');
const size = 48; // of a square, in pixels

function draw() {
  const now = Date.now() % 2 ** 24;
  ink.fillStyle = '#444';
  ink.fillRect(0, 0, canvas.width, canvas.height);
  for (let bit = 0; bit < 24; bit += 1) {
    ink.fillStyle = Math.floor(now / 2 ** bit) % 2 ? '#fff' : '#000';
    ink.fillRect(32 + (bit % 12) * size, 96 + Math.floor(bit / 12) * (size + 24), size, size);
  }
}

/** Publishes to a WHIP address; resolves when connected. */
window.publish = async (url) => {
  setInterval(draw, 1000 / 30);
  const stream = canvas.captureStream(30);
  const pc = new RTCPeerConnection();
  window.pc = pc;
  pc.addTransceiver(stream.getVideoTracks()[0], { direction: 'sendonly', streams: [stream] });
  await pc.setLocalDescription();
  const answer = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
  if (answer.status !== 201) {
    throw new Error(await answer.text());
  }
  await pc.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  await new Promise((resolve, reject) => {
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === 'connected') resolve();
      if (pc.connectionState === 'failed') reject(new Error('ICE or DTLS failed'));
    };
  });
};
