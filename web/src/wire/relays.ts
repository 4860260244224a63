/** Reads the ICE servers of a `Link` header (RFC 9725 §4.6, RFC 8288 §3); links of another kind are left out. */
export function readRelays(header: string | null): RTCIceServer[] {
  const servers: RTCIceServer[] = [];
  for (const [, url, params] of (header ?? '').matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]+))*)/g)) {
    const values = new Map<string, string>();
    for (const [, key, quoted, plain] of (params ?? '').matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))/g)) {
      values.set((key ?? '').toLowerCase(), plain ?? (quoted ?? '').replace(/\\(.)/g, '$1'));
    }
    if (values.get('rel') !== 'ice-server' || !/^(stun|turn)s?:/.test(url ?? '')) continue;
    const username = values.get('username');
    servers.push({ urls: url ?? '', ...(username === undefined ? {} : { username, credential: values.get('credential') ?? '' }) });
  }
  return servers;
}
