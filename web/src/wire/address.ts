/** Where the pages are and whom they talk to; everything is on the page's own origin. */

export interface Address {
  app: string;
  id: string;
  token: string;
}

export const DEFAULT_ID = 'stream1';

/** The rule of media.NewKey: what a stream may be called. */
export function validId(id: string): boolean {
  return /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/.test(id);
}

export function readAddress(loc: { pathname: string; search: string }): Address {
  const q = new URLSearchParams(loc.search);
  return {
    app: decodeURIComponent(loc.pathname.split('/')[1] ?? ''),
    id: (q.get('id') ?? q.get('name') ?? '').trim() || DEFAULT_ID,
    token: q.get('token') ?? '',
  };
}

const part = encodeURIComponent;

export const whipUrl = (a: Address): string => `/${part(a.app)}/whip/${part(a.id)}`;
export const whepUrl = (a: Address): string => `/${part(a.app)}/whep/${part(a.id)}`;

export function socketUrl(a: Address, loc: { protocol: string; host: string }): string {
  return `${loc.protocol === 'https:' ? 'wss' : 'ws'}://${loc.host}/${part(a.app)}/websocket?target=edge`;
}

/**
 * The origin that the server was configured with: a whole one, ":5443" for that port of the page's
 * own host, or nothing for the page's own origin.
 */
export function originOf(configured: string, loc: { protocol: string; hostname: string; origin: string }): string {
  if (/^:\d+$/.test(configured)) return `${loc.protocol}//${loc.hostname}${configured}`;
  if (/^https?:\/\//.test(configured)) return configured.replace(/\/+$/, '');
  return loc.origin;
}

/** The link that viewers open. */
export function playLink(a: Address, configured: string, loc: { protocol: string; hostname: string; origin: string }): string {
  return `${originOf(configured, loc)}/${part(a.app)}/player.html?id=${part(a.id)}`;
}
