/** A small level meter for the microphone, so that nobody talks into a dead one. */

/** Follows `track` until the returned function is called; level is 0 to 1. */
export function followLevel(track: MediaStreamTrack, onLevel: (level: number) => void): () => void {
  if (typeof AudioContext === 'undefined') return () => {};
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  const source = context.createMediaStreamSource(new MediaStream([track]));
  source.connect(analyser);
  const wave = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    let sum = 0;
    for (const v of wave) sum += v * v;
    // -60 dBFS and less is silence.
    const db = 10 * Math.log10(sum / wave.length + 1e-9);
    onLevel(track.enabled ? Math.max(0, Math.min(1, (db + 60) / 60)) : 0);
  }, 100);
  return () => {
    clearInterval(timer);
    onLevel(0);
    source.disconnect();
    void context.close().catch(() => {});
  };
}
