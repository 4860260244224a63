/** What the cluster does now, by server-sent events. One connection serves all that is on screen. */
import { useSyncExternalStore } from 'react';
import { list, type Group, type Node, type Totals } from './api.js';

export interface Sample {
  at: number; // seconds
  totals: Totals;
}

export interface Live {
  /** lost: no connection; what is shown is the last that was heard. */
  state: 'connecting' | 'live' | 'lost';
  /** The registry can't be reached. */
  away: boolean;
  /** Nothing was told yet. */
  empty: boolean;
  at: number; // ms, by the registry's clock
  nodes: Node[];
  groups: Group[];
  totals: Totals | undefined;
  streams: number; // changes when the list of streams has
  samples: Sample[]; // since the panel was opened
}

interface ClusterEvent {
  at: string;
  away: boolean;
  reset: boolean;
  nodes: Node[];
  gone: string[];
  heard: Record<string, number>;
  groups: Group[] | null;
  totals: Totals;
}

/** An hour at most, a sample every two seconds. */
const KEEP = 1800;
const SAMPLE_EVERY = 2000;
/** Without an event for so long (ms) the connection is lost, whatever the browser thinks. */
const SILENCE = 5000;

const nothing: Live = { state: 'connecting', away: false, empty: true, at: 0, nodes: [], groups: [], totals: undefined, streams: 0, samples: [] };
let now = nothing;
let source: EventSource | undefined;
let byId = new Map<string, Node>();
let silent: ReturnType<typeof setTimeout> | undefined;
const listeners = new Set<() => void>();

function set(change: Partial<Live>): void {
  now = { ...now, ...change };
  for (const fn of listeners) fn();
}

function heard(): void {
  clearTimeout(silent);
  silent = setTimeout(() => { set({ state: 'lost' }); restart(); }, SILENCE);
}

function apply(e: ClusterEvent): void {
  if (e.reset) byId = new Map();
  for (const id of e.gone) byId.delete(id);
  for (const n of e.nodes) byId.set(n.id, n);
  for (const [id, ms] of Object.entries(e.heard)) {
    const n = byId.get(id);
    if (n !== undefined) byId.set(id, { ...n, lastHeartbeat: new Date(ms).toISOString() });
  }
  const at = Date.parse(e.at);
  const last = now.samples.at(-1);
  const due = !e.away && (last === undefined || at - last.at * 1000 >= SAMPLE_EVERY);
  set({
    state: 'live', away: e.away, empty: false, at, totals: e.totals, groups: list(e.groups),
    nodes: [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    samples: due ? [...now.samples.slice(-KEEP + 1), { at: at / 1000, totals: e.totals }] : now.samples,
  });
}

function restart(): void {
  source?.close();
  source = new EventSource('/rest/v2/events');
  heard();
  source.addEventListener('cluster', (e) => { heard(); apply(JSON.parse((e as MessageEvent<string>).data) as ClusterEvent); });
  source.addEventListener('streams', () => { heard(); set({ state: 'live', streams: now.streams + 1 }); });
  source.addEventListener('error', () => {
    set({ state: now.empty ? 'connecting' : 'lost' });
    if (source?.readyState === EventSource.CLOSED) { clearTimeout(silent); silent = setTimeout(restart, 1000); }
  });
}

/** Begins to listen; the session must be there. */
export function startLive(): void {
  if (source === undefined) restart();
}

export function stopLive(): void {
  source?.close();
  source = undefined;
  clearTimeout(silent);
  byId = new Map();
  set(nothing);
}

export function useLive(): Live {
  return useSyncExternalStore((fn) => { listeners.add(fn); return () => listeners.delete(fn); }, () => now);
}
