/** What the viewer sees: the picture, its last frame while it is away, one calm notice, the controls. */
import { byTestId, setText } from '../ui/dom.js';
import { showFigures } from '../ui/figures.js';
import { setIcon } from '../ui/icons.js';
import { messageFor } from '../ui/messages.js';
import type { Figures } from '../wire/stats.js';
import type { Layer } from '../wire/layers.js';
import type { Chosen } from './chosen.js';
import { Controls } from './controls.js';
import { MARKUP } from './markup.js';
import { QualityMenu } from './quality.js';
import type { WatchStatus } from './watcher.js';

/** Frames that come for this long (ms) are a stream, not a picture that was kept. */
const ADVANCING = 150;

export interface ViewOptions {
  streamId: string;
  muted: boolean;
  chosen: Chosen;
  onRetry(): void;
  /** A picture is on the screen. */
  onFirstFrame(): void;
  /** The viewer asked for the picture on a page that does not start by itself. */
  onStart(): void;
}

const STATE_WORDS: Record<WatchStatus['state'], string> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  waiting: 'Waiting',
  error: 'Error',
};

export class View {
  readonly video: HTMLVideoElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly stateText: HTMLElement;
  private readonly notice: HTMLElement;
  private readonly bigPlay: HTMLElement;
  private readonly controls: Controls;
  private readonly quality: QualityMenu;
  private status: WatchStatus = { state: 'connecting', retrying: true, seen: false };

  constructor(private readonly root: HTMLElement, private readonly o: ViewOptions) {
    root.classList.add('stage');
    root.innerHTML = MARKUP;
    this.video = byTestId<HTMLVideoElement>('video', root);
    this.canvas = root.querySelector('canvas') as HTMLCanvasElement;
    this.stateText = root.querySelector('[data-part="state"]') as HTMLElement;
    this.notice = byTestId('notice', root);
    this.bigPlay = byTestId('big-play', root);
    this.video.muted = o.muted;
    this.controls = new Controls(root, this.video);
    this.quality = new QualityMenu(root, this.video, o.chosen);
    byTestId('retry', root).addEventListener('click', () => o.onRetry());
    this.bigPlay.addEventListener('click', () => {
      this.bigPlay.hidden = true;
      o.onStart();
    });
  }

  /** Shows a play button instead of starting. */
  askToStart(): void {
    this.bigPlay.hidden = false;
    document.body.dataset['state'] = 'idle';
    this.root.dataset['state'] = 'idle';
    setText(this.stateText, 'Ready');
  }

  /**
   * Shows a stream. Its first frame takes the place of the frozen one; resolves when frames advance:
   * a server may keep the last pictures of a stream that is over. Where frames are not called back
   * (hidden pages, Firefox before 132) it never does: the session looks at the bytes as well.
   */
  attach(stream: MediaStream): Promise<void> {
    const { video } = this;
    const uncover = (): void => {
      this.canvas.hidden = true;
      this.o.onFirstFrame();
    };
    const advancing = new Promise<void>((resolve) => {
      if (!('requestVideoFrameCallback' in video)) {
        this.video.addEventListener('loadeddata', uncover, { once: true });
        return;
      }
      let first: number | undefined;
      const look = (now: number): void => {
        if (video.srcObject !== stream) return;
        if (first === undefined) uncover();
        first ??= now;
        if (now - first >= ADVANCING) resolve();
        else video.requestVideoFrameCallback(look);
      };
      video.requestVideoFrameCallback(look);
    });
    video.srcObject = stream;
    this.controls.streamChanged();
    return advancing;
  }

  /** Keeps the last frame on the screen; a frame that is kept already stays. */
  freeze(): void {
    const { video, canvas } = this;
    if (!canvas.hidden || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || video.videoWidth === 0) return;
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext('2d')?.drawImage(video, 0, 0);
    canvas.hidden = false;
  }

  setStatus(s: WatchStatus): void {
    this.status = s;
    document.body.dataset['state'] = s.state;
    this.root.dataset['state'] = s.state;
    const away = s.state === 'reconnecting' && s.problem !== undefined;
    setText(this.stateText, away ? `Reconnecting · ${messageFor(s.problem?.code ?? '', 'play').title}` : STATE_WORDS[s.state]);
    this.showNotice(s);
    if (s.state !== 'live') showFigures(this.root, undefined);
    this.controls.wake();
  }

  /** The path is lost for the moment, or back: the session itself goes on. */
  setPath(ok: boolean): void {
    if (this.status.state !== 'live') return;
    setText(this.stateText, ok ? 'Live' : 'Reconnecting');
    const state = ok ? 'live' : 'reconnecting';
    document.body.dataset['state'] = state;
    this.root.dataset['state'] = state;
  }

  setLayers(layers: Layer[]): void {
    this.quality.setLayers(layers);
  }

  setFigures(f: Figures): void {
    if (this.status.state === 'live') showFigures(this.root, f);
  }

  private showNotice(s: WatchStatus): void {
    const waiting = s.state === 'waiting';
    this.notice.hidden = !(waiting || s.state === 'error');
    if (this.notice.hidden) return;
    const m = messageFor(waiting ? 'stream_offline' : (s.problem?.code ?? ''), 'play');
    setIcon(this.notice.querySelector('[data-part="mark"]') as Element, waiting ? 'wave' : 'alert');
    setText(byTestId('notice-title', this.notice), waiting ? this.waitingTitle(s) : m.title);
    setText(byTestId('notice-hint', this.notice), waiting && s.seen ? 'It goes on here by itself when it is back.' : m.hint);
    byTestId('retry', this.notice).hidden = waiting || s.problem?.code === 'bad_name'; // the same name is refused again
    this.notice.dataset['code'] = s.problem?.code ?? (waiting ? 'stream_offline' : '');
  }

  private waitingTitle(s: WatchStatus): string {
    return s.seen ? `${this.o.streamId} has ended` : `${this.o.streamId} is not live yet`;
  }
}
