/** The renditions of a stream, as the server's `layers` event tells them (draft-ietf-wish-whep-03 §4.9). */

export interface Layer {
  rid: string;
  width: number; // pixels; 0: not known
  height: number;
  bitrate: number; // bit/s; 0: not known
}

/** What a viewer wants of the picture: a rendition in any case, or what the path takes; and whether he wants it now. */
export interface Selection {
  rid: string; // '': what the path takes
  enabled: boolean;
}

const num = (v: unknown): number => (typeof v === 'number' && v > 0 ? v : 0);

/** The layers of the first picture in the event's data, the best first; none of what can't be read. */
export function readLayers(data: string): Layer[] {
  let event: unknown;
  try {
    event = JSON.parse(data);
  } catch {
    return [];
  }
  const lines = typeof event === 'object' && event !== null ? Object.values(event) : [];
  const first: unknown = lines.find((l) => Array.isArray(l));
  const layers: Layer[] = [];
  for (const l of Array.isArray(first) ? (first as unknown[]) : []) {
    if (typeof l !== 'object' || l === null) continue;
    const { rid, width, height, bitrate, targetBitrate } = l as Record<string, unknown>;
    if (typeof rid !== 'string' || rid === '') continue;
    layers.push({ rid, width: num(width), height: num(height), bitrate: num(bitrate) || num(targetBitrate) });
  }
  return layers;
}

/** "720p": by the shorter side, as people call it, also of a picture that stands upright. */
export function sizeName(width: number, height: number): string {
  const lines = width > 0 && height > 0 ? Math.min(width, height) : height;
  return lines > 0 ? `${lines}p` : '';
}

export function layerName(l: Layer): string {
  return sizeName(l.width, l.height) || l.rid;
}

/** "2.4 Mbit/s", "400 kbit/s"; '' when it is not known. */
export function rateName(bitrate: number): string {
  if (bitrate >= 1_000_000) return `${(bitrate / 1_000_000).toFixed(1)} Mbit/s`;
  return bitrate > 0 ? `${Math.round(bitrate / 1000)} kbit/s` : '';
}

/** The body of a request to the layer's address. A rendition that the stream has not (yet) is not asked for. */
export function selectionBody(s: Selection, layers: readonly Layer[]): string {
  return JSON.stringify({
    ...(layers.some((l) => l.rid === s.rid) ? { rid: s.rid } : {}),
    ...(s.enabled ? {} : { enabled: false }),
  });
}
