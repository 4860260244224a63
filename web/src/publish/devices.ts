/** Camera, microphone and screen, and what can go wrong with each. */
import { Problem } from '../wire/problem.js';
import { cameraConstraints, type Quality } from './quality.js';

/** Select values that are not device ids. */
export const NONE = 'none';

export type Capture = 'camera' | 'microphone' | 'screen';

/** Throws a Problem where the browser can't capture at all. */
export function checkCapture(win: { isSecureContext: boolean; navigator: { mediaDevices?: MediaDevices | undefined } }): void {
  if (!win.isSecureContext) throw new Problem('insecure_page');
  if (win.navigator.mediaDevices?.getUserMedia === undefined || typeof RTCPeerConnection === 'undefined') {
    throw new Problem('unsupported_browser');
  }
}

/** The exceptions of getUserMedia and getDisplayMedia as problems. */
export function captureProblem(err: unknown, what: Capture): Problem {
  if (err instanceof Problem) return err;
  const name = err instanceof Error ? err.name : '';
  const detail = err instanceof Error ? err.message : String(err);
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return new Problem(what === 'screen' ? 'screen_refused' : 'no_permission', detail);
    case 'NotFoundError':
    case 'OverconstrainedError':
      return new Problem(what === 'microphone' ? 'no_microphone' : 'no_camera', detail);
    case 'NotReadableError':
    case 'AbortError':
      return new Problem(what === 'screen' ? 'screen_refused' : 'device_busy', detail);
    case 'TypeError':
      return new Problem('unsupported_browser', detail);
    default:
      return new Problem('page_error', detail);
  }
}

export interface Wanted {
  camera: string; // device id, '' for the default, NONE
  microphone: string;
  quality: Quality;
}

export interface Captured {
  video: MediaStreamTrack | null;
  audio: MediaStreamTrack | null;
  /** A device that was wanted and is missing; the other one is there. */
  missing?: Problem;
}

/** Opens camera and microphone with one question to the user. Throws a Problem. */
export async function capture(w: Wanted): Promise<Captured> {
  checkCapture(window);
  const wantVideo = w.camera !== NONE;
  const wantAudio = w.microphone !== NONE;
  if (!wantVideo && !wantAudio) return { video: null, audio: null };
  const video = wantVideo ? cameraConstraints(w.quality, w.camera) : false;
  const audio = wantAudio ? soundConstraints(w.microphone) : false;
  try {
    return split(await navigator.mediaDevices.getUserMedia({ video, audio }));
  } catch (err) {
    if (!isMissing(err) || !wantVideo || !wantAudio) throw captureProblem(err, wantVideo ? 'camera' : 'microphone');
  }
  // One of the two is missing; the browser does not say which.
  return captureEither(video, audio);
}

async function captureEither(
  video: MediaTrackConstraints | false,
  audio: MediaTrackConstraints | false,
): Promise<Captured> {
  try {
    const got = split(await navigator.mediaDevices.getUserMedia({ video }));
    return { ...got, missing: new Problem('no_microphone') };
  } catch (err) {
    if (!isMissing(err)) throw captureProblem(err, 'camera');
  }
  try {
    const got = split(await navigator.mediaDevices.getUserMedia({ audio }));
    return { ...got, missing: new Problem('no_camera') };
  } catch (err) {
    if (!isMissing(err)) throw captureProblem(err, 'microphone');
    throw new Problem('no_camera');
  }
}

/** Lets the user choose a screen, window or tab. Throws a Problem. */
export async function captureScreen(q: Quality): Promise<MediaStreamTrack> {
  checkCapture(window);
  if (navigator.mediaDevices.getDisplayMedia === undefined) {
    throw new Problem('screen_refused', 'this browser can not share a screen');
  }
  try {
    const stream = await navigator.mediaDevices.getDisplayMedia({
      video: { frameRate: { ideal: q.fps }, width: { max: Math.max(q.width, 1920) } },
    });
    const track = stream.getVideoTracks()[0];
    if (track === undefined) throw new Problem('screen_refused');
    track.contentHint = 'detail';
    return track;
  } catch (err) {
    throw captureProblem(err, 'screen');
  }
}

function soundConstraints(deviceId: string): MediaTrackConstraints {
  return {
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
    ...(deviceId === '' ? {} : { deviceId: { exact: deviceId } }),
  };
}

function isMissing(err: unknown): boolean {
  return err instanceof Error && (err.name === 'NotFoundError' || err.name === 'OverconstrainedError');
}

function split(stream: MediaStream): Captured {
  const video = stream.getVideoTracks()[0] ?? null;
  if (video !== null) video.contentHint = 'motion';
  return { video, audio: stream.getAudioTracks()[0] ?? null };
}
