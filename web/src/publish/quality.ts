/** Picture sizes a publisher may choose. */

export interface Quality {
  key: string;
  label: string;
  width: number;
  height: number;
  fps: number;
  /** Upper limit for video, in bit/s. */
  bitrate: number;
}

export const QUALITIES: readonly Quality[] = [
  { key: '1080p60', label: '1080p · 60 fps · 6 Mbit/s', width: 1920, height: 1080, fps: 60, bitrate: 6_000_000 },
  { key: '1080p30', label: '1080p · 30 fps · 4.5 Mbit/s', width: 1920, height: 1080, fps: 30, bitrate: 4_500_000 },
  { key: '720p60', label: '720p · 60 fps · 4 Mbit/s', width: 1280, height: 720, fps: 60, bitrate: 4_000_000 },
  { key: '720p30', label: '720p · 30 fps · 2.5 Mbit/s', width: 1280, height: 720, fps: 30, bitrate: 2_500_000 },
  { key: '480p30', label: '480p · 30 fps · 1.2 Mbit/s', width: 854, height: 480, fps: 30, bitrate: 1_200_000 },
  { key: '360p30', label: '360p · 30 fps · 0.7 Mbit/s', width: 640, height: 360, fps: 30, bitrate: 700_000 },
];

export const DEFAULT_QUALITY = '720p30';

export function qualityOf(key: string | null): Quality {
  const found = QUALITIES.find((q) => q.key === key) ?? QUALITIES.find((q) => q.key === DEFAULT_QUALITY);
  if (found === undefined) throw new Error('no default quality');
  return found;
}

/** From this height on several renditions are sent unless the user says otherwise: viewers on narrow networks need smaller ones. */
export const SEVERAL_FROM = 720;

/** What one track is sent as: one encoding, or three renditions, smallest first, as browsers want them. */
export function encodingsOf(q: Quality, several: boolean): RTCRtpEncodingParameters[] {
  const of = (rid: string, down: number, share: number): RTCRtpEncodingParameters => ({
    rid,
    scaleResolutionDownBy: down,
    maxBitrate: Math.round((q.bitrate * share) / 10_000) * 10_000,
    maxFramerate: q.fps,
  });
  if (!several) return [{ maxBitrate: q.bitrate, maxFramerate: q.fps }];
  // A quarter of the pixels needs a little more than a quarter of the bits.
  return [of('q', 4, 0.09), of('h', 2, 0.3), of('f', 1, 1)];
}

export function cameraConstraints(q: Quality, deviceId: string): MediaTrackConstraints {
  return {
    width: { ideal: q.width },
    height: { ideal: q.height },
    frameRate: { ideal: q.fps },
    ...(deviceId === '' ? {} : { deviceId: { exact: deviceId } }),
  };
}
