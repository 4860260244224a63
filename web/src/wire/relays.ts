/** Reads what we need of a `Link` header (RFC 8288 §3). */

interface LinkValue {
  url: string;
  params: Map<string, string>;
}

function readLinks(header: string | null): LinkValue[] {
  const links: LinkValue[] = [];
  for (const [, url, params] of (header ?? '').matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]+))*)/g)) {
    const values = new Map<string, string>();
    for (const [, key, quoted, plain] of (params ?? '').matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))/g)) {
      values.set((key ?? '').toLowerCase(), plain ?? (quoted ?? '').replace(/\\(.)/g, '$1'));
    }
    links.push({ url: url ?? '', params: values });
  }
  return links;
}

/** The ICE servers (RFC 9725 §4.6). */
export function readRelays(header: string | null): RTCIceServer[] {
  const servers: RTCIceServer[] = [];
  for (const { url, params } of readLinks(header)) {
    if (params.get('rel') !== 'ice-server' || !/^(stun|turn)s?:/.test(url)) continue;
    const username = params.get('username');
    servers.push({ urls: url, ...(username === undefined ? {} : { username, credential: params.get('credential') ?? '' }) });
  }
  return servers;
}

/** Where the viewer chooses a rendition (the layers extension of WHEP); '' when the server has no such place. */
export function readLayer(header: string | null): string {
  return readLinks(header).find(({ params }) => params.get('rel') === 'urn:ietf:params:whep:ext:core:layer')?.url ?? '';
}

/** Where the session's server-sent events are, as the WHEP extension has it; '' when the server has none. */
export function readEvents(header: string | null): string {
  const link = readLinks(header).find(({ params }) => /^urn:ietf:params:(whip|whep):ext:core:server-sent-events$/.test(params.get('rel') ?? ''));
  return link?.url ?? '';
}

/** What a `paused` event says: the rids of the renditions that nobody takes. What can't be read pauses nothing. */
export function readPaused(data: string): string[] {
  try {
    const { rids } = JSON.parse(data) as { rids?: unknown };
    return Array.isArray(rids) ? rids.filter((r): r is string => typeof r === 'string') : [];
  } catch {
    return [];
  }
}
