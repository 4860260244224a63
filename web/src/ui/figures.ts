/** Writes live figures into elements with data-figure; each also carries its bare number in data-value. */
import type { Figures } from '../wire/stats.js';
import { setText } from './dom.js';

const none = '–';

interface Shown {
  text: string;
  value: string;
}

const shown = (v: number | undefined, unit: string, digits = 0): Shown =>
  v === undefined ? { text: none, value: '' } : { text: `${v.toFixed(digits)} ${unit}`, value: v.toFixed(3) };

export function describe(f: Figures): Record<string, Shown> {
  return {
    resolution: f.width > 0 ? { text: `${f.width}\u200a×\u200a${f.height}`, value: `${f.width}x${f.height}` } : { text: none, value: '' },
    fps: shown(f.width > 0 ? f.fps : undefined, 'fps'),
    bitrate: f.kbps >= 1000
      ? { text: `${(f.kbps / 1000).toFixed(2)} Mbit/s`, value: f.kbps.toFixed(0) }
      : shown(f.kbps, 'kbit/s'),
    rtt: shown(f.rttMs, 'ms', (f.rttMs ?? 10) < 10 ? 1 : 0),
    loss: shown(f.lossPercent, '%', 1),
    buffer: shown(f.bufferMs, 'ms'),
    codec: { text: f.codec || none, value: f.codec },
  };
}

export function showFigures(root: ParentNode, f: Figures | undefined): void {
  const all = f === undefined ? {} : describe(f);
  for (const el of root.querySelectorAll<HTMLElement>('[data-figure]')) {
    const s = all[el.dataset['figure'] ?? ''] ?? { text: none, value: '' };
    setText(el, s.text);
    el.dataset['value'] = s.value;
  }
}
