/** One WHIP or WHEP session with its peer connection: opens it, trickles, restarts ICE, says when it is over. */
import { sleep } from './backoff.js';
import { asProblem, Problem } from './problem.js';
import { readPaused } from './relays.js';
import { Resource } from './resource.js';
import { applyFragment, readFragment, writeFragment, type Candidate } from './sdp.js';

/** How long a started session may take until media can flow, in milliseconds. */
export const CONNECT_TIMEOUT = 8000;
/** How long a viewer waits for ICE to mend itself before it opens a new session. */
const DISCONNECT_GRACE = 1000;
/** How long the server may take to answer a goodbye before the connection is closed without it. */
const LEAVE_TIMEOUT = 1000;
const RESTART_TIMEOUT = 4000;
/** How long a direct path is tried before the server's relays are. */
const DIRECT_TIMEOUT = 2000;
/** Candidates that come close together share a PATCH. */
const TRICKLE_DELAY = 20;

export interface LinkOptions {
  endpoint: string;
  token: string;
  pc: RTCPeerConnection;
  signal: AbortSignal;
  /** Candidates are sent after this many milliseconds unless media flows by then. */
  trickleAfter: number;
  /** Whether a lost path is mended by an ICE restart before the session is given up. */
  restarts: boolean;
  /** Told by the server which of our renditions nobody takes, by their rids; they need not be sent. */
  onPaused?(rids: string[]): void;
  /** Changes the offer, and the answer, before they are used. */
  prepare?: (sdp: string) => string;
  prepareAnswer?: (sdp: string) => string;
  /** Called with the data of each layers event. */
  onLayers?: (data: string) => void;
  /** Called when the path is lost and when it is back. */
  onPath?: (ok: boolean) => void;
  /** Called just before the peer connection is closed, which takes the picture off the screen. */
  onClosing?: () => void;
}

export class Link {
  /** Resolves when DTLS is up; rejects with a Problem when it does not come up. */
  readonly connected: Promise<void>;
  /** Resolves once with the reason when the session is over. */
  readonly ended: Promise<Problem>;
  /** Resolves when the server asks for another session, which it wants us to have elsewhere. */
  readonly moving: Promise<void>;

  private readonly pc: RTCPeerConnection;
  private readonly stop = new AbortController();
  private resource: Resource | undefined;
  private candidates: Candidate[] = [];
  private gathered = false;
  private trickling = false;
  private trickleTimer: ReturnType<typeof setTimeout> | undefined;
  private mending = false;
  private end!: (why: Problem) => void;
  private move!: () => void;
  private events: EventSource | undefined;
  private leaving: Promise<void> | undefined;

  /** Opens a session; returns when the answer is in place. Throws a Problem. */
  static async open(o: LinkOptions): Promise<Link> {
    const link = new Link(o);
    try {
      await link.negotiate();
      return link;
    } catch (err) {
      void link.close();
      throw asProblem(err);
    }
  }

  private constructor(private readonly o: LinkOptions) {
    this.pc = o.pc;
    this.ended = new Promise((resolve) => (this.end = resolve));
    this.moving = new Promise((resolve) => (this.move = resolve));
    this.connected = this.waitConnected();
    this.connected.catch(() => {}); // whoever awaits it gets the reason
    this.pc.onicecandidate = (e) => this.onCandidate(e.candidate);
    this.pc.onconnectionstatechange = () => this.onConnection();
    this.pc.oniceconnectionstatechange = () => this.onIce();
    if (o.signal.aborted) void this.close();
    else o.signal.addEventListener('abort', () => void this.close(), { once: true, signal: this.stop.signal });
  }

  /** Asks whether the server still has the session, and ends this half of it when it has not. */
  async ask(): Promise<void> {
    try {
      await this.resource?.present(this.stop.signal);
    } catch (err) {
      if (asProblem(err).code === 'no_session') this.lost(asProblem(err));
    }
  }

  /** Says which rendition of the picture is wanted. What comes of it is seen. */
  async choose(selection: string): Promise<void> {
    try {
      await this.resource?.choose(selection, this.stop.signal);
    } catch (err) {
      if (asProblem(err).code === 'no_session') this.lost(asProblem(err));
    }
  }

  /** Ends the session on both sides; resolves when the server knows. May be called again. */
  close(): Promise<void> {
    this.leaving ??= this.leave();
    return this.leaving;
  }

  /**
   * The DELETE goes first: a server that sees DTLS close before it takes us for lost, and waits for our return.
   * It is on its way when this returns for the first time, so that a page that goes has sent it.
   */
  private async leave(): Promise<void> {
    this.stop.abort();
    clearTimeout(this.trickleTimer);
    this.events?.close();
    this.pc.onicecandidate = this.pc.onconnectionstatechange = this.pc.oniceconnectionstatechange = null;
    const told = this.resource?.remove();
    this.o.onClosing?.();
    this.end(new Problem('unreachable', 'closed by this page'));
    if (told !== undefined) {
      for (const s of this.pc.getSenders()) s.replaceTrack(null).catch(() => {}); // nothing more is sent meanwhile
      await Promise.race([told, sleep(LEAVE_TIMEOUT)]);
    }
    this.pc.close();
  }

  /** The offer is on its way before gathering begins: the server offers its candidates in the answer. */
  private async negotiate(): Promise<void> {
    const { pc, o } = this;
    const offer = await pc.createOffer();
    const sdp = o.prepare?.(offer.sdp ?? '') ?? offer.sdp ?? '';
    const local = pc.setLocalDescription({ type: 'offer', sdp });
    const [answer] = await Promise.all([
      Resource.create(o.endpoint, sdp, o.token, this.stop.signal).then((a) => {
        this.resource = a.resource;
        if (this.stop.signal.aborted) void a.resource.remove();
        return a;
      }),
      local,
    ]);
    if (this.stop.signal.aborted) throw new Problem('unreachable', 'stopped');
    await pc.setRemoteDescription({ type: 'answer', sdp: o.prepareAnswer?.(answer.sdp) ?? answer.sdp });
    this.listen(answer.events);
    for (const t of pc.getTransceivers()) this.watchDtls(t.sender.transport ?? t.receiver.transport);
    if (answer.relays.length > 0) {
      void sleep(DIRECT_TIMEOUT, this.stop.signal).then(() => this.useRelays(answer.relays));
    }
    void sleep(o.trickleAfter, this.stop.signal).then(() => {
      if (pc.connectionState === 'connected') return;
      this.trickling = true;
      this.flushSoon();
    });
  }

  /** The browser opens the events again by itself when they break off, until the server says that the session is gone. */
  private listen(url: string): void {
    if (url === '' || typeof EventSource === 'undefined') return;
    const { onLayers } = this.o;
    this.events = new EventSource(onLayers === undefined ? url : `${url}?only=reconnect,layers`);
    this.events.addEventListener('reconnect', () => this.move());
    if (onLayers !== undefined) this.events.addEventListener('layers', (e) => onLayers(String(e.data)));
    this.events.addEventListener('paused', (e: MessageEvent<string>) => this.o.onPaused?.(readPaused(e.data)));
  }

  private async waitConnected(): Promise<void> {
    const { pc } = this;
    const up = new Promise<void>((resolve) => {
      const look = (): void => {
        if (pc.connectionState !== 'connected') return;
        pc.removeEventListener('connectionstatechange', look);
        resolve();
      };
      pc.addEventListener('connectionstatechange', look);
    });
    const limit = sleep(CONNECT_TIMEOUT, this.stop.signal).then(() => {
      throw new Problem('no_media', 'no path for media was found');
    });
    limit.catch(() => {});
    await Promise.race([up, limit, this.ended.then((p) => Promise.reject(p))]);
  }

  private onCandidate(c: RTCIceCandidate | null): void {
    if (c === null || c.candidate === '') this.gathered = true;
    else this.candidates.push({ candidate: c.candidate, mid: c.sdpMid ?? '' });
    if (this.trickling && !this.mending) this.flushSoon();
  }

  private flushSoon(): void {
    clearTimeout(this.trickleTimer);
    this.trickleTimer = setTimeout(() => void this.flush(), TRICKLE_DELAY);
  }

  private async flush(): Promise<void> {
    const sdp = this.pc.localDescription?.sdp;
    if (sdp === undefined || this.resource === undefined || (this.candidates.length === 0 && !this.gathered)) return;
    const body = writeFragment(sdp, this.candidates.splice(0), this.gathered);
    this.gathered = false;
    try {
      await this.resource.trickle(body, this.stop.signal);
    } catch (err) {
      // A server need not take candidates (it learns them from the checks), but it must know the session.
      this.trickling = false;
      if (asProblem(err).code === 'no_session') this.lost(asProblem(err));
    }
  }

  private onConnection(): void {
    const state = this.pc.connectionState;
    if (state === 'connected') this.o.onPath?.(true);
    else if (state === 'closed') this.lost(new Problem('no_media', 'the connection was closed'));
    else if (state === 'failed') this.mendOrEnd();
  }

  private onIce(): void {
    if (this.pc.iceConnectionState !== 'disconnected') return;
    this.o.onPath?.(false);
    if (this.o.restarts) return this.mendOrEnd();
    void sleep(DISCONNECT_GRACE, this.stop.signal).then(() => {
      if (this.pc.iceConnectionState === 'disconnected') this.lost(new Problem('no_media', 'the path was lost'));
      else this.o.onPath?.(true);
    });
  }

  private mendOrEnd(): void {
    if (this.mending) return;
    if (!this.o.restarts || this.resource === undefined || this.pc.remoteDescription === null) {
      return this.lost(new Problem('no_media', 'the path was lost'));
    }
    this.o.onPath?.(false);
    this.mend(this.resource);
  }

  /** A path by the server's relays, which a browser only looks for when ICE begins anew. */
  private useRelays(relays: RTCIceServer[]): void {
    const { pc, resource } = this;
    if (pc.connectionState === 'connected' || pc.connectionState === 'closed' || resource === undefined || this.mending) return;
    pc.setConfiguration({ ...pc.getConfiguration(), iceServers: relays });
    this.mend(resource);
  }

  private mend(resource: Resource): void {
    this.mending = true;
    this.restart(resource).then(
      () => (this.mending = false),
      (err: unknown) => this.lost(asProblem(err)),
    );
  }

  private async restart(resource: Resource): Promise<void> {
    const { pc } = this;
    this.candidates = [];
    this.gathered = false;
    const offer = await pc.createOffer({ iceRestart: true });
    await pc.setLocalDescription(offer);
    await sleep(200, this.stop.signal); // host candidates are there at once; the server needs no more
    const body = writeFragment(pc.localDescription?.sdp ?? '', this.candidates.splice(0), this.gathered);
    const answer = readFragment(await resource.restart(body, this.stop.signal));
    const sdp = applyFragment(pc.currentRemoteDescription?.sdp ?? '', answer);
    await pc.setRemoteDescription({ type: 'answer', sdp });
    const deadline = Date.now() + RESTART_TIMEOUT;
    while (!['connected', 'completed'].includes(pc.iceConnectionState)) {
      if (Date.now() > deadline) throw new Problem('no_media', 'the path did not come back');
      await sleep(100, this.stop.signal);
      if (this.stop.signal.aborted) return;
    }
    this.o.onPath?.(true);
  }

  /** The server ends a session by closing DTLS; not every browser reports that as a connection state. */
  private watchDtls(t: RTCDtlsTransport | null): void {
    t?.addEventListener('statechange', () => {
      if (t.state === 'closed') this.lost(new Problem('no_session', 'the server ended the session'));
      else if (t.state === 'failed') this.lost(new Problem('no_media', 'encryption failed'));
    }, { signal: this.stop.signal });
  }

  private lost(why: Problem): void {
    if (why.code === 'no_session') this.resource = undefined; // there is nothing left to remove
    this.end(why);
    void this.close();
  }
}
