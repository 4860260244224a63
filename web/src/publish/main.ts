/** The publish page: ties the page, what is captured and the publication together. */
import '../ui/tokens.css';
import '../ui/base.css';
import './publish.css';
import { bindCopyButton } from '../ui/copy.js';
import { byTestId, setText, store } from '../ui/dom.js';
import { drawIcons } from '../ui/icons.js';
import { applyTheme, bindThemeButton } from '../ui/theme.js';
import { playLink, readAddress, validId, whipUrl, type Address } from '../wire/address.js';
import { asProblem, Problem } from '../wire/problem.js';
import { checkCapture, type Wanted } from './devices.js';
import { followLevel } from './meter.js';
import { Page } from './page.js';
import { Publisher, type PublishStatus } from './publisher.js';
import { qualityOf, SEVERAL_FROM } from './quality.js';
import { SendSession } from './session.js';
import { Studio } from './studio.js';

applyTheme();
drawIcons(document);
bindThemeButton(byTestId('theme'));

const opened = readAddress(location);
const playOrigin = document.querySelector<HTMLMetaElement>('meta[name="sluice-play-origin"]')?.content ?? '';
const page = new Page();
let starting = false;
let opening: Promise<void> | undefined;
let stopMeter = (): void => {};
let wakeLock: WakeLockSentinel | undefined;

const address = (): Address => ({ ...opened, id: page.streamId.value.trim() });
const wanted = (): Wanted => ({
  camera: page.camera.value,
  microphone: page.microphone.value,
  quality: qualityOf(page.quality.value),
});
const link = (): string => playLink(address(), playOrigin, location);

const studio = new Studio({
  changed: (kind) => {
    page.drawStudio(studio);
    offerSeveral();
    if (kind === 'audio') {
      stopMeter();
      stopMeter = studio.audio === null ? (): void => {} : followLevel(studio.audio, (l) => page.setLevel(l));
    }
    void exchange(kind);
  },
  problem: (p) => page.showProblem(p),
  screenEnded: () => void attempt(() => studio.chooseCamera(wanted())),
});

const publisher: Publisher<SendSession> = new Publisher<SendSession>({
  open: (signal, onPath) => SendSession.open({
    endpoint: whipUrl(address()),
    token: opened.token,
    video: studio.video,
    audio: studio.audio,
    quality: qualityOf(page.quality.value),
    several: page.several.checked,
    onFigures: (f) => page.setFigures(f),
  }, signal, onPath),
}, onStatus);

function onStatus(s: PublishStatus): void {
  page.setState(s.state);
  if (s.problem !== undefined) page.showProblem(s.problem);
  else if (s.state === 'live') page.clearMessage();
  void keepAwake(s.state === 'live');
}

/** Several renditions are sent of a camera that is large enough, unless the user has said what he wants. */
function offerSeveral(): void {
  const height = studio.video?.getSettings().height ?? 0;
  const said = store.get('several');
  page.several.checked = said !== null ? said === 'on' : height >= SEVERAL_FROM && !studio.onScreen;
}

/** Hands a new track to the running session; one that has no place for it is opened anew. */
async function exchange(kind: 'video' | 'audio'): Promise<void> {
  const { session } = publisher;
  if (!publisher.active || session === undefined) return;
  const track = kind === 'video' ? studio.video : studio.audio;
  if (await session.replace(kind, track)) await session.setQuality(qualityOf(page.quality.value));
  else publisher.start();
}

/** Refuses a name that the server would refuse, before anything is asked of it. */
function checkName(): boolean {
  const ok = validId(address().id);
  page.setNameOk(ok);
  return ok;
}

async function start(): Promise<void> {
  if (publisher.active || starting) return;
  if (!checkName()) return page.streamId.focus();
  page.clearMessage();
  page.setState('connecting');
  starting = true;
  const ok = await attempt(openDevices);
  if (!starting) return; // stopped while the browser asked for permission
  starting = false;
  if (!ok) return page.setState('error');
  if (studio.video === null && studio.audio === null) {
    page.showProblem(new Problem('nothing_to_send'));
    return page.setState('error');
  }
  publisher.start();
}

function stop(): void {
  if (starting) page.setState('idle');
  starting = false;
  void publisher.stop();
}

/** One at a time: a page that opens its preview by itself may be asked to start meanwhile. */
function openDevices(): Promise<void> {
  opening ??= openOnce().finally(() => (opening = undefined));
  return opening;
}

async function openOnce(): Promise<void> {
  await studio.open(wanted());
  page.fillDevices(await navigator.mediaDevices.enumerateDevices());
  selectOpened();
}

/** Shows in the selects which devices the browser opened. */
function selectOpened(): void {
  const camera = studio.onScreen ? undefined : studio.video?.getSettings().deviceId;
  const microphone = studio.audio?.getSettings().deviceId;
  if (camera !== undefined) page.camera.value = camera;
  if (microphone !== undefined) page.microphone.value = microphone;
}

/** Runs something that may fail for a reason the user should read; false when it did. */
async function attempt(what: () => Promise<void>): Promise<boolean> {
  try {
    await what();
    return true;
  } catch (err) {
    page.showProblem(asProblem(err));
    page.drawStudio(studio);
    return false;
  }
}

async function toggleScreen(): Promise<void> {
  if (studio.onScreen) await studio.stopScreen(wanted());
  else await studio.shareScreen(qualityOf(page.quality.value));
  page.clearMessage();
}

/** A phone that goes to sleep stops its camera. */
async function keepAwake(on: boolean): Promise<void> {
  if (on && wakeLock === undefined) wakeLock = await navigator.wakeLock?.request('screen').catch(() => undefined);
  else if (!on) {
    await wakeLock?.release().catch(() => {});
    wakeLock = undefined;
  }
}

function bind(): void {
  page.start.addEventListener('click', () => void start());
  page.stop.addEventListener('click', () => stop());
  page.allow.addEventListener('click', () => {
    page.clearMessage();
    checkName();
    void attempt(openDevices);
  });
  page.mute.addEventListener('click', () => {
    studio.setMicOn(!studio.micOn);
    page.drawStudio(studio);
  });
  page.cameraToggle.addEventListener('click', () => {
    studio.setCameraOn(!studio.cameraOn);
    page.drawStudio(studio);
  });
  page.screen.addEventListener('click', () => void attempt(toggleScreen));
  page.camera.addEventListener('change', () => void attempt(() => studio.chooseCamera(wanted())));
  page.microphone.addEventListener('change', () => void attempt(() => studio.chooseMicrophone(wanted())));
  page.quality.addEventListener('change', () => {
    const q = qualityOf(page.quality.value);
    store.set('quality', q.key);
    void studio.setQuality(q);
    void publisher.session?.setQuality(q);
  });
  page.several.addEventListener('change', () => {
    store.set('several', page.several.checked ? 'on' : 'off');
    if (publisher.active) publisher.start(); // how many are sent is agreed on once for a session
  });
  page.streamId.addEventListener('input', () => {
    checkName();
    page.setLink(link());
  });
  page.streamId.addEventListener('keydown', (e) => {
    if (e.key === 'Enter') void start();
  });
  bindCopyButton(byTestId('copy-link'), link);
  navigator.mediaDevices?.addEventListener('devicechange', () => {
    void navigator.mediaDevices.enumerateDevices().then((d) => {
      page.fillDevices(d);
      selectOpened();
    });
  });
  addEventListener('online', () => publisher.retryNow());
  addEventListener('pagehide', () => stop());
}

/** Shows the preview without a click where the user has allowed it before. */
async function previewIfAllowed(): Promise<void> {
  try {
    checkCapture(window);
    const query = (name: string): Promise<PermissionStatus> => navigator.permissions.query({ name: name as PermissionName });
    const states = await Promise.all([query('camera'), query('microphone')]);
    if (states.some((s) => s.state !== 'granted')) return;
  } catch (err) {
    if (err instanceof Problem) page.showProblem(err); // other errors: the browser can't be asked without asking the user
    return;
  }
  if (!publisher.active && studio.video === null) await attempt(openDevices);
}

page.quality.value = qualityOf(store.get('quality')).key;
page.streamId.value = opened.id;
page.setLink(link());
page.setState('idle');
page.drawStudio(studio);
setText(byTestId('app-name'), opened.app);
document.title = `Publish ${opened.id} · Sluice`;
bind();
checkName();
void previewIfAllowed();
