/** The publish page's elements: shows the state, asks for what the user wants, nothing else. */
import { byTestId, clock, setText } from '../ui/dom.js';
import { showFigures } from '../ui/figures.js';
import { setIcon } from '../ui/icons.js';
import { messageFor } from '../ui/messages.js';
import { Problem } from '../wire/problem.js';
import type { Figures } from '../wire/stats.js';
import { NONE } from './devices.js';
import type { PublishState } from './publisher.js';
import { QUALITIES } from './quality.js';
import type { Studio } from './studio.js';

const STATE_WORDS: Record<PublishState, string> = {
  idle: 'Ready',
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  error: 'Error',
};

export class Page {
  readonly streamId = byTestId<HTMLInputElement>('stream-id');
  readonly camera = byTestId<HTMLSelectElement>('camera');
  readonly microphone = byTestId<HTMLSelectElement>('microphone');
  readonly quality = byTestId<HTMLSelectElement>('quality');
  readonly several = byTestId<HTMLInputElement>('several');
  readonly start = byTestId<HTMLButtonElement>('start');
  readonly stop = byTestId<HTMLButtonElement>('stop');
  readonly mute = byTestId<HTMLButtonElement>('mute');
  readonly cameraToggle = byTestId<HTMLButtonElement>('camera-toggle');
  readonly screen = byTestId<HTMLButtonElement>('screen');
  readonly allow = byTestId<HTMLButtonElement>('allow');
  private readonly stage = byTestId('stage');
  private readonly preview = byTestId<HTMLVideoElement>('preview');
  private readonly link = byTestId<HTMLInputElement>('play-link');
  private readonly openLink = byTestId<HTMLAnchorElement>('open-link');
  private readonly message = byTestId('message');
  private readonly stateText = byTestId('state-text');
  private readonly timer = byTestId('timer');
  private readonly meter = byTestId('meter');
  private liveSince: number | undefined;
  private limitedFor = 0; // seconds

  constructor() {
    for (const q of QUALITIES) this.quality.add(new Option(q.label, q.key));
    this.fillDevices([]);
    byTestId('message-close').addEventListener('click', () => this.clearMessage());
    setInterval(() => this.tick(), 500);
  }

  setState(state: PublishState): void {
    document.body.dataset['state'] = state;
    this.stage.dataset['state'] = state;
    setText(this.stateText, STATE_WORDS[state]);
    const busy = state === 'connecting' || state === 'live' || state === 'reconnecting';
    const hadFocus = document.activeElement === this.start || document.activeElement === this.stop;
    this.start.hidden = busy;
    this.stop.hidden = !busy;
    if (hadFocus) (busy ? this.stop : this.start).focus(); // the pressed button goes away: its twin takes the focus
    this.streamId.disabled = busy;
    if (state === 'live') this.liveSince ??= Date.now();
    if (!busy) this.liveSince = undefined;
    if (state !== 'live') {
      showFigures(document, undefined);
      this.limitedFor = 0;
      byTestId('limited').hidden = true;
    }
    this.tick();
  }

  setFigures(f: Figures): void {
    showFigures(document, f);
    // The first seconds of every stream are "limited" until the way is measured.
    this.limitedFor = f.limitedBy === '' ? 0 : this.limitedFor + 1;
    const limited = byTestId('limited');
    limited.hidden = this.limitedFor < 10;
    setText(limited, f.limitedBy === 'cpu' ? 'This computer is at its limit: choose a smaller quality.' : 'The network is at its limit: quality is lowered for now.');
  }

  /** Draws what is captured. */
  drawStudio(s: Studio): void {
    const seen = s.video !== null && s.cameraOn;
    // An element that has a stream without tracks would keep the page loading for ever.
    const stream = s.video === null ? null : s.preview;
    if (this.preview.srcObject !== stream) this.preview.srcObject = stream;
    this.stage.dataset['picture'] = seen ? 'on' : s.video !== null ? 'off' : 'none';
    this.allow.hidden = s.audio !== null && s.video !== null;
    setText(byTestId('empty-title'), s.video !== null ? 'Camera is off' : s.audio !== null ? 'Sound only' : 'Your preview appears here');
    setText(byTestId('empty-hint'), s.video !== null ? 'Viewers see a black picture.' : s.audio !== null ? 'No picture is sent.' : 'Nobody sees it before you go live.');
    toggle(this.mute, s.micOn, s.micOn ? 'mic' : 'mic-off', s.micOn ? 'Mute microphone' : 'Unmute microphone');
    toggle(this.cameraToggle, s.cameraOn, s.cameraOn ? 'camera' : 'camera-off', s.cameraOn ? 'Turn camera off' : 'Turn camera on');
    this.screen.setAttribute('aria-pressed', String(s.onScreen));
    this.screen.title = s.onScreen ? 'Stop sharing the screen' : 'Share a screen';
    this.screen.setAttribute('aria-label', this.screen.title);
    this.camera.disabled = s.onScreen;
  }

  setLevel(level: number): void {
    this.meter.style.setProperty('--level', level.toFixed(2));
  }

  setLink(url: string): void {
    this.link.value = url;
    this.openLink.href = url;
  }

  /** Fills the selects; before permission the browser tells neither names nor ids. */
  fillDevices(devices: MediaDeviceInfo[]): void {
    fill(this.camera, devices.filter((d) => d.kind === 'videoinput'), 'Default camera', 'No camera');
    fill(this.microphone, devices.filter((d) => d.kind === 'audioinput'), 'Default microphone', 'No microphone');
  }

  showProblem(p: Problem): void {
    const m = messageFor(p.code, 'publish');
    this.message.dataset['code'] = p.code;
    setText(byTestId('message-title'), m.title);
    setText(byTestId('message-hint'), m.hint);
    this.message.hidden = false;
  }

  /** A name that is not allowed is said at once, and nothing can be started with it. */
  setNameOk(ok: boolean): void {
    this.start.disabled = !ok;
    if (ok) this.streamId.removeAttribute('aria-invalid');
    else this.streamId.setAttribute('aria-invalid', 'true');
    if (!ok) this.showProblem(new Problem('bad_name'));
    else if (this.message.dataset['code'] === 'bad_name') this.clearMessage();
  }

  clearMessage(): void {
    this.message.hidden = true;
    delete this.message.dataset['code'];
  }

  private tick(): void {
    const live = this.liveSince !== undefined && document.body.dataset['state'] === 'live';
    this.timer.hidden = !live;
    if (live) setText(this.timer, clock(Date.now() - (this.liveSince ?? 0)));
  }
}

function toggle(button: HTMLElement, on: boolean, icon: 'mic' | 'mic-off' | 'camera' | 'camera-off', label: string): void {
  setIcon(button, icon);
  button.setAttribute('aria-pressed', String(!on));
  button.setAttribute('aria-label', label);
  button.title = label;
}

function fill(select: HTMLSelectElement, devices: MediaDeviceInfo[], first: string, none: string): void {
  const before = select.value;
  const named = devices.filter((d) => d.deviceId !== '');
  select.replaceChildren();
  if (named.length === 0) select.add(new Option(first, ''));
  named.forEach((d, i) => select.add(new Option(d.label || `${first} ${i + 1}`, d.deviceId)));
  select.add(new Option(none, NONE));
  select.value = [...select.options].some((o) => o.value === before) ? before : (select.options[0]?.value ?? '');
}
