/** The HTTP half of WHIP and WHEP (RFC 9725): one session and its URL. */
import { Problem, problemOf } from './problem.js';
import { readEvents, readLayer, readRelays } from './relays.js';

/** How long one request may take, in milliseconds. */
const REQUEST_TIMEOUT = 10_000;

export interface Answer {
  resource: Resource;
  sdp: string;
  /** STUN and TURN servers for when there is no direct path. */
  relays: RTCIceServer[];
  /** Where the server tells the session to move; '' when it does not. */
  events: string;
}

export class Resource {
  private constructor(
    readonly url: string,
    private etag: string,
    private readonly token: string,
    private readonly layer: string,
  ) {}

  /** Posts the offer. Throws a Problem. */
  static async create(endpoint: string, offer: string, token: string, signal: AbortSignal): Promise<Answer> {
    const headers = { ...bearer(token), 'Content-Type': 'application/sdp', Accept: 'application/sdp' };
    const res = await request(endpoint, { method: 'POST', headers, body: offer }, signal);
    if (res.status !== 201) throw await problemOf(res);
    const location = res.headers.get('Location');
    if (location === null) throw new Problem('internal', 'the answer has no Location');
    const url = new URL(location, new URL(res.url || endpoint, globalThis.location?.href)).href;
    const links = res.headers.get('Link');
    const layer = readLayer(links);
    const resource = new Resource(url, res.headers.get('ETag') ?? '', token, layer === '' ? '' : new URL(layer, url).href);
    try {
      const events = readEvents(links);
      return { resource, sdp: await res.text(), relays: readRelays(links), events: events === '' ? '' : new URL(events, url).href };
    } catch {
      void resource.remove();
      throw new Problem('unreachable', 'the answer broke off');
    }
  }

  /** Sends candidates of the present ICE session. Throws a Problem. */
  async trickle(fragment: string, signal: AbortSignal): Promise<void> {
    const res = await this.patch(fragment, this.etag === '' ? '*' : this.etag, signal);
    if (!res.ok) throw await problemOf(res);
  }

  /** Starts a new ICE session and returns the server's half of it (RFC 9725 §4.3.3). Throws a Problem. */
  async restart(fragment: string, signal: AbortSignal): Promise<string> {
    const res = await this.patch(fragment, '*', signal);
    if (res.status !== 200) throw await problemOf(res);
    this.etag = res.headers.get('ETag') ?? this.etag;
    return res.text();
  }

  /** Says which rendition of the picture is wanted; nothing where the server has no place for that. Throws a Problem. */
  async choose(selection: string, signal: AbortSignal): Promise<void> {
    if (this.layer === '') return;
    const headers = { ...bearer(this.token), 'Content-Type': 'application/json' };
    const res = await request(this.layer, { method: 'POST', headers, body: selection }, signal);
    if (!res.ok) throw await problemOf(res);
  }

  /** Asks whether the server still has the session. Throws a Problem: no_session says that it has not. */
  async present(signal: AbortSignal): Promise<void> {
    const res = await request(this.url, { method: 'GET', headers: bearer(this.token) }, signal);
    if (!res.ok) throw await problemOf(res);
  }

  /** Ends the session. keepalive lets the request outlive the page; a failure is left to the server's time-outs. */
  async remove(): Promise<void> {
    try {
      await fetch(this.url, { method: 'DELETE', headers: bearer(this.token), keepalive: true });
    } catch {
      // the server notices by itself that nobody is there
    }
  }

  private patch(fragment: string, ifMatch: string, signal: AbortSignal): Promise<Response> {
    const headers = {
      ...bearer(this.token),
      'Content-Type': 'application/trickle-ice-sdpfrag',
      'If-Match': ifMatch,
    };
    return request(this.url, { method: 'PATCH', headers, body: fragment }, signal);
  }
}

function bearer(token: string): Record<string, string> {
  return token === '' ? {} : { Authorization: `Bearer ${token}` };
}

async function request(url: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
  const limit = new AbortController();
  const abort = (): void => limit.abort();
  const timer = setTimeout(abort, REQUEST_TIMEOUT);
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();
  try {
    return await fetch(url, { ...init, cache: 'no-store', signal: limit.signal });
  } catch {
    throw new Problem('unreachable', signal.aborted ? 'stopped' : 'no answer from the server');
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
