/** What is being captured: one video source (camera or screen) and one microphone, each with its switch. */
import { Problem } from '../wire/problem.js';
import { capture, captureProblem, captureScreen, NONE, type Wanted } from './devices.js';
import { cameraConstraints, type Quality } from './quality.js';

export interface StudioEvents {
  /** Tracks were opened, exchanged or closed. */
  changed(kind: 'video' | 'audio'): void;
  problem(p: Problem): void;
  /** The browser's own "stop sharing" was pressed. */
  screenEnded(): void;
}

export class Studio {
  video: MediaStreamTrack | null = null;
  audio: MediaStreamTrack | null = null;
  /** The preview's stream; its tracks follow. */
  readonly preview = new MediaStream();
  onScreen = false;
  cameraOn = true;
  micOn = true;

  constructor(private readonly events: StudioEvents) {}

  /** Opens what is wanted and not open yet. Throws a Problem. */
  async open(w: Wanted): Promise<void> {
    const wanted = {
      ...w,
      camera: this.video !== null ? NONE : w.camera,
      microphone: this.audio !== null ? NONE : w.microphone,
    };
    const got = await capture(wanted);
    if (got.video !== null) this.setVideo(got.video, false);
    if (got.audio !== null) this.setAudio(got.audio);
    if (got.missing !== undefined) this.events.problem(got.missing);
  }

  /** Exchanges the camera. Throws a Problem; the old one is closed first, some can't be open twice. */
  async chooseCamera(w: Wanted): Promise<void> {
    if (this.onScreen) return;
    this.setVideo(null, false);
    const got = await capture({ ...w, microphone: NONE });
    this.setVideo(got.video, false);
  }

  async chooseMicrophone(w: Wanted): Promise<void> {
    this.setAudio(null);
    const got = await capture({ ...w, camera: NONE });
    this.setAudio(got.audio);
  }

  /** Shows a screen in place of the camera. Throws a Problem. */
  async shareScreen(q: Quality): Promise<void> {
    const track = await captureScreen(q);
    this.setVideo(track, true);
  }

  /** Goes from screen back to camera. Throws a Problem. */
  async stopScreen(w: Wanted): Promise<void> {
    if (!this.onScreen) return;
    this.setVideo(null, false);
    await this.chooseCamera(w);
  }

  setCameraOn(on: boolean): void {
    this.cameraOn = on;
    if (this.video !== null) this.video.enabled = on;
  }

  setMicOn(on: boolean): void {
    this.micOn = on;
    if (this.audio !== null) this.audio.enabled = on;
  }

  async setQuality(q: Quality): Promise<void> {
    if (this.video === null || this.onScreen) return;
    try {
      await this.video.applyConstraints(cameraConstraints(q, ''));
    } catch (err) {
      this.events.problem(captureProblem(err, 'camera'));
    }
  }

  close(): void {
    this.setVideo(null, false);
    this.setAudio(null);
  }

  private setVideo(track: MediaStreamTrack | null, screen: boolean): void {
    this.release(this.video);
    this.video = track;
    this.onScreen = screen && track !== null;
    if (track !== null) {
      if (screen) this.cameraOn = true;
      track.enabled = this.cameraOn;
      this.preview.addTrack(track);
      track.onended = () => this.lost('video');
    }
    this.events.changed('video');
  }

  private setAudio(track: MediaStreamTrack | null): void {
    this.release(this.audio);
    this.audio = track;
    if (track !== null) {
      track.enabled = this.micOn;
      track.onended = () => this.lost('audio');
    }
    this.events.changed('audio');
  }

  private release(track: MediaStreamTrack | null): void {
    if (track === null) return;
    track.onended = null;
    track.stop();
    this.preview.removeTrack(track);
  }

  /** A device was unplugged, permission withdrawn, or screen sharing ended by the browser. */
  private lost(kind: 'video' | 'audio'): void {
    const screen = this.onScreen;
    if (kind === 'video') this.setVideo(null, false);
    else this.setAudio(null);
    if (screen && kind === 'video') this.events.screenEnded();
    else this.events.problem(new Problem(kind === 'video' ? 'no_camera' : 'no_microphone'));
  }
}
