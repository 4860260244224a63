/** Errors as the server and this page know them: a stable code, and words from messages.ts. */

/** Codes that only the page makes; the server's are in internal/problem/codes.go. */
export type LocalCode =
  | 'unreachable' // the request got no answer
  | 'no_media' // signalling worked, media did not get through
  | 'insecure_page'
  | 'unsupported_browser'
  | 'no_permission'
  | 'no_camera'
  | 'no_microphone'
  | 'nothing_to_send'
  | 'device_busy'
  | 'screen_refused'
  | 'page_error';

export class Problem extends Error {
  constructor(
    readonly code: string,
    readonly detail = '',
    readonly status = 0,
    /** What Retry-After asked for, in milliseconds. */
    readonly retryAfter = 0,
  ) {
    super(detail === '' ? code : `${code}: ${detail}`);
    this.name = 'Problem';
  }
}

/** Reads application/problem+json (RFC 9457); other bodies are mapped by their status. */
export async function problemOf(res: Response): Promise<Problem> {
  const seconds = Number(res.headers.get('Retry-After') ?? '');
  const wait = Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 60) * 1000 : 0;
  const text = await res.text().catch(() => '');
  try {
    const body = JSON.parse(text) as { code?: unknown; detail?: unknown };
    if (typeof body.code === 'string') {
      return new Problem(body.code, typeof body.detail === 'string' ? body.detail : '', res.status, wait);
    }
  } catch {
    // not JSON: a proxy in between answered
  }
  return new Problem(codeOfStatus(res.status), `status ${res.status}`, res.status, wait);
}

function codeOfStatus(status: number): string {
  switch (status) {
    case 401: return 'unauthorized';
    case 403: return 'forbidden';
    case 404: return 'not_found';
    case 409: return 'stream_in_use';
    case 429: return 'too_many_requests';
    case 502: case 503: return 'no_node';
    case 504: return 'timeout';
    default: return status >= 500 ? 'internal' : 'bad_request';
  }
}

/** Any thrown value as a Problem; fetch rejects with a TypeError when no answer came. */
export function asProblem(err: unknown): Problem {
  if (err instanceof Problem) return err;
  const text = err instanceof Error ? err.message : String(err);
  return new Problem('page_error', text);
}

/** Whether the same request may well succeed later without anybody doing anything. */
export function isPassing(code: string): boolean {
  return PASSING.has(code);
}

const PASSING: ReadonlySet<string> = new Set([
  'unreachable', 'no_media', 'node_full', 'draining', 'no_node', 'origin_unreachable', 'too_many_requests', 'internal', 'timeout',
  'no_session', 'wrong_etag',
]);
