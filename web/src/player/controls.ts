/** Play, sound, volume, full screen, picture in picture, figures; by pointer and by key. */
import { byTestId, store } from '../ui/dom.js';
import { setIcon } from '../ui/icons.js';

/** How long the controls stay after the last movement, in milliseconds. */
const HIDE_AFTER = 2500;
const VOLUME_STEP = 0.05;

type WebkitVideo = HTMLVideoElement & { webkitEnterFullscreen?: () => void; webkitDisplayingFullscreen?: boolean };
type WebkitElement = HTMLElement & { webkitRequestFullscreen?: () => void };
type WebkitDocument = Document & { webkitFullscreenElement?: Element | null; webkitExitFullscreen?: () => void };

export class Controls {
  private hideTimer: ReturnType<typeof setTimeout> | undefined;
  /** The viewer paused it: a new stream must not start by itself. */
  private pausedByViewer = false;
  /** Muted because the browser asks for it, not because the viewer wants it. */
  private soundWanted = true;
  private readonly buttons: Record<'play' | 'mute' | 'stats' | 'pip' | 'full' | 'cta', HTMLElement>;
  private readonly volume: HTMLInputElement;

  constructor(private readonly root: HTMLElement, private readonly video: HTMLVideoElement) {
    this.buttons = {
      play: byTestId('play', root),
      mute: byTestId('mute', root),
      stats: byTestId('stats-toggle', root),
      pip: byTestId('pip', root),
      full: byTestId('fullscreen', root),
      cta: byTestId('unmute', root),
    };
    this.volume = byTestId<HTMLInputElement>('volume', root);
    const saved = Number(store.get('volume') ?? '1');
    video.volume = saved > 0 && saved <= 1 ? saved : 1;
    this.bindButtons();
    this.bindPointer();
    document.addEventListener('keydown', (e) => this.onKey(e));
    this.draw();
  }

  /** A stream was put into the element. */
  streamChanged(): void {
    if (!this.pausedByViewer) void this.play();
    this.draw();
  }

  /** Shows the controls for a while. */
  wake(): void {
    this.root.classList.remove('quiet');
    clearTimeout(this.hideTimer);
    this.hideTimer = setTimeout(() => {
      const busy = this.video.paused || this.root.dataset['state'] !== 'live' || this.root.querySelector('.controls :focus-visible, .controls [aria-expanded="true"]') !== null;
      if (!busy) this.root.classList.add('quiet');
    }, HIDE_AFTER);
  }

  private async play(): Promise<void> {
    try {
      await this.video.play();
    } catch (err) {
      // Sound needs a gesture first in most browsers: start without it and offer it.
      if (err instanceof DOMException && err.name === 'NotAllowedError' && !this.video.muted) {
        this.video.muted = true;
        await this.video.play().catch(() => {});
      }
    }
    this.draw();
  }

  private bindButtons(): void {
    const { video, buttons } = this;
    buttons.play.addEventListener('click', () => this.togglePlay());
    buttons.mute.addEventListener('click', () => this.toggleMute());
    buttons.cta.addEventListener('click', () => this.toggleMute(false));
    buttons.stats.addEventListener('click', () => this.toggleStats());
    buttons.full.addEventListener('click', () => this.toggleFull());
    buttons.pip.addEventListener('click', () => this.togglePip());
    this.volume.addEventListener('input', () => this.setVolume(Number(this.volume.value) / 100));
    for (const e of ['play', 'pause', 'volumechange', 'loadedmetadata', 'enterpictureinpicture', 'leavepictureinpicture']) {
      video.addEventListener(e, () => this.draw());
    }
    // The system's own controls (full screen on iPhone, picture in picture) pause too.
    video.addEventListener('pause', () => {
      if (this.root.dataset['state'] === 'live' && video.srcObject !== null && !video.ended) this.pausedByViewer = true;
    });
    video.addEventListener('play', () => (this.pausedByViewer = false));
    for (const e of ['fullscreenchange', 'webkitfullscreenchange']) document.addEventListener(e, () => this.draw());
  }

  private bindPointer(): void {
    const { root } = this;
    for (const e of ['pointermove', 'pointerdown', 'focusin', 'keydown']) root.addEventListener(e, () => this.wake());
    root.addEventListener('pointerleave', () => {
      if (this.root.dataset['state'] === 'live' && !this.video.paused) root.classList.add('quiet');
    });
    this.video.addEventListener('click', () => {
      if (!this.buttons.cta.hidden) this.toggleMute(false);
      else if (matchMedia('(hover: hover)').matches) this.togglePlay();
    });
    this.video.addEventListener('dblclick', () => this.toggleFull());
  }

  private onKey(e: KeyboardEvent): void {
    if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
    const on = e.target instanceof HTMLElement ? e.target.tagName : '';
    if (on === 'TEXTAREA' || on === 'SELECT' || (on === 'INPUT' && e.target !== this.volume)) return;
    if (e.key === ' ' && (on === 'BUTTON' || on === 'A')) return; // the key belongs to the button
    const act = this.keys[e.key.toLowerCase()];
    if (act === undefined) return;
    e.preventDefault();
    act();
    this.wake();
  }

  private readonly keys: Record<string, (() => void) | undefined> = {
    ' ': () => this.togglePlay(),
    m: () => this.toggleMute(),
    f: () => this.toggleFull(),
    i: () => this.toggleStats(),
    arrowup: () => this.setVolume(this.video.volume + VOLUME_STEP),
    arrowdown: () => this.setVolume(this.video.volume - VOLUME_STEP),
  };

  private togglePlay(): void {
    if (this.video.srcObject === null) return;
    if (this.video.paused) {
      this.pausedByViewer = false;
      void this.play();
    } else {
      this.pausedByViewer = true;
      this.video.pause();
    }
  }

  private toggleMute(muted = !this.video.muted): void {
    this.soundWanted = !muted; // who mutes is not asked again
    this.video.muted = muted;
    if (!muted && this.video.volume === 0) this.setVolume(0.5);
    if (!muted && this.video.paused && !this.pausedByViewer) void this.play();
    this.draw();
  }

  private setVolume(v: number): void {
    const volume = Math.round(Math.min(1, Math.max(0, v)) * 100) / 100;
    this.video.volume = volume;
    if (volume > 0) this.video.muted = false;
    store.set('volume', String(volume));
    this.draw();
  }

  private toggleStats(): void {
    const stats = byTestId('stats', this.root);
    stats.hidden = !stats.hidden;
    this.buttons.stats.setAttribute('aria-pressed', String(!stats.hidden));
  }

  private toggleFull(): void {
    const doc = document as WebkitDocument;
    const root = this.root as WebkitElement;
    const video = this.video as WebkitVideo;
    if (this.isFull()) void (document.exitFullscreen ? document.exitFullscreen() : doc.webkitExitFullscreen?.());
    else if (root.requestFullscreen) root.requestFullscreen().catch(() => {});
    else if (root.webkitRequestFullscreen) root.webkitRequestFullscreen();
    else video.webkitEnterFullscreen?.(); // iPhone: only the video itself
  }

  private isFull(): boolean {
    return (document.fullscreenElement ?? (document as WebkitDocument).webkitFullscreenElement ?? null) !== null;
  }

  private togglePip(): void {
    if (document.pictureInPictureElement) void document.exitPictureInPicture().catch(() => {});
    else void this.video.requestPictureInPicture().catch(() => {});
  }

  private draw(): void {
    const { video, buttons } = this;
    const stream = video.srcObject as MediaStream | null;
    const silent = video.muted || video.volume === 0;
    label(buttons.play, video.paused ? 'Play' : 'Pause', 'space');
    setIcon(buttons.play, video.paused ? 'play' : 'pause');
    label(buttons.mute, silent ? 'Sound on' : 'Sound off', 'm');
    setIcon(buttons.mute, silent ? 'sound-off' : 'sound');
    label(buttons.full, this.isFull() ? 'Leave full screen' : 'Full screen', 'f');
    setIcon(buttons.full, this.isFull() ? 'full-exit' : 'full');
    this.volume.value = String(silent ? 0 : Math.round(video.volume * 100));
    buttons.pip.hidden = !document.pictureInPictureEnabled;
    const hasSound = (stream?.getAudioTracks().length ?? 0) > 0;
    buttons.cta.hidden = !(video.muted && this.soundWanted && hasSound && !video.paused);
  }
}

function label(el: HTMLElement, text: string, key: string): void {
  el.setAttribute('aria-label', text);
  el.title = `${text} (${key})`;
}
