/** Waits on the signalling WebSocket until an offline stream starts; nothing is asked of the server meanwhile. */
import { sleep } from './backoff.js';
import { Problem } from './problem.js';

const PING_EVERY = 3000;
/** A socket that has said nothing for this long is dead. */
const SILENCE_LIMIT = 10_000;
/** How often to ask again when the socket cannot be used. */
const POLL_EVERY = 3000;

export interface WaitOptions {
  url: string;
  streamId: string;
  token: string;
  signal: AbortSignal;
  WebSocket?: typeof WebSocket;
}

/**
 * Resolves when it is worth asking for the stream again: at once when the server says that it
 * started, after 3 s when the socket fails. Throws a Problem when the viewer may not watch.
 */
export async function waitForStart(o: WaitOptions): Promise<void> {
  const outcome = await listen(o);
  if (outcome === 'failed') await sleep(POLL_EVERY, o.signal);
  else if (outcome === 'refused') throw new Problem('forbidden', 'the server does not allow this stream to be watched');
}

type Outcome = 'started' | 'failed' | 'refused';

function listen(o: WaitOptions): Promise<Outcome> {
  const Socket = o.WebSocket ?? WebSocket;
  return new Promise((resolve) => {
    let ws: WebSocket;
    let ping: ReturnType<typeof setInterval> | undefined;
    let silent: ReturnType<typeof setTimeout> | undefined;
    const finish = (outcome: Outcome): void => {
      clearInterval(ping);
      clearTimeout(silent);
      o.signal.removeEventListener('abort', stopped);
      ws.onopen = ws.onmessage = ws.onclose = ws.onerror = null;
      ws.close();
      resolve(outcome);
    };
    const heard = (): void => {
      clearTimeout(silent);
      silent = setTimeout(() => finish('failed'), SILENCE_LIMIT);
    };
    const stopped = (): void => finish('failed');
    try {
      ws = new Socket(o.url);
    } catch {
      return resolve('failed');
    }
    if (o.signal.aborted) return finish('failed');
    o.signal.addEventListener('abort', stopped);
    heard();
    ws.onopen = () => {
      ws.send(JSON.stringify({ command: 'play', streamId: o.streamId, token: o.token, subscriberId: '', subscriberCode: '' }));
      ping = setInterval(() => ws.send('{"command":"ping"}'), PING_EVERY);
    };
    ws.onmessage = (e) => {
      heard();
      const outcome = read(String(e.data), o.streamId);
      if (outcome !== undefined) finish(outcome);
    };
    ws.onerror = ws.onclose = () => finish('failed');
  });
}

/** What a message means for the wait; undefined: go on waiting. */
export function read(data: string, streamId: string): Outcome | undefined {
  let m: { command?: unknown; definition?: unknown; streamId?: unknown };
  try {
    m = JSON.parse(data) as typeof m;
  } catch {
    return undefined;
  }
  if (m.streamId !== undefined && m.streamId !== streamId) return undefined;
  switch (m.command) {
    case 'takeConfiguration': // it went live between the two requests: the server offers it here
      return 'started';
    case 'notification':
      if (m.definition === 'streaming_started') return 'started';
      return m.definition === 'server_will_stop' ? 'failed' : undefined;
    case 'error':
      if (m.definition === 'no_stream_exist') return undefined;
      return m.definition === 'unauthorized_access' || m.definition === 'user_blocked' ? 'refused' : 'failed';
    default:
      return undefined;
  }
}
