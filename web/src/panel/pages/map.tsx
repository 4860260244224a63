import { useMemo } from 'react';
import { ask, client, list, type Node, type Stream } from '../api.js';
import { link, useLoad } from '../hooks.js';
import type { Live } from '../live.js';
import { count, plural } from '../words.js';

/** So many nodes of a column are drawn, the busiest; and the flows of so many streams, the most watched. */
const MOST = 16;
const STREAMS = 500;

interface Flow {
  from: string;
  to: string;
  streams: number;
  viewers: number;
}

/** Which streams flow from the nodes that they are published to, to those that have them. */
export function flowsOf(streams: Stream[]): Flow[] {
  const flows = new Map<string, Flow>();
  for (const s of streams) {
    for (const at of list(s.nodes)) {
      if (at.node === s.origin) continue;
      const k = `${s.origin}\n${at.node}`;
      const f = flows.get(k) ?? { from: s.origin, to: at.node, streams: 0, viewers: 0 };
      flows.set(k, { ...f, streams: f.streams + 1, viewers: f.viewers + at.viewers });
    }
  }
  return [...flows.values()];
}

const busiest = (nodes: Node[]): Node[] => [...nodes].sort((a, b) => b.viewers - a.viewers || b.streams - a.streams || (a.id < b.id ? -1 : 1)).slice(0, MOST).sort((a, b) => (a.id < b.id ? -1 : 1));

const H = 52;
const W = 220;

/** The way of the streams: publishers, origins, edges, viewers. */
export function FlowMap({ live }: { live: Live }) {
  const { data } = useLoad(() => ask(client.GET('/rest/v2/cluster/streams', { params: { query: { size: STREAMS, sort: 'viewers', desc: true } } }))
    .then(({ data, response }) => ({ streams: list(data), total: Number(response.headers.get('X-Total-Count')) })), [live.streams]);
  const streams = data?.streams ?? [];
  const flows = useMemo(() => flowsOf(streams), [streams]);
  const origins = live.nodes.filter((n) => n.role === 'origin' || n.role === 'standalone');
  const edges = live.nodes.filter((n) => n.role === 'edge');
  const left = busiest(origins);
  const right = busiest(edges);
  if (left.length + right.length < 2) return null;
  const tall = Math.max(left.length, right.length) * H + 8;
  const y = (i: number, of: number): number => (tall - of * H) / 2 + i * H + 8;
  const xs = { left: 150, right: 620 };
  const most = Math.max(1, ...flows.map((f) => f.streams));
  const published = (n: Node): number => streams.filter((s) => s.origin === n.id).length;
  const alive = (n: Node): boolean => n.state !== 'dead';
  const says = `${plural(streams.length, 'stream')} from ${plural(origins.filter(alive).length, 'origin')} to ${plural(edges.filter(alive).length, 'edge')}: ${flows.map((f) => `${plural(f.streams, 'stream')} from ${f.from} to ${f.to}, ${plural(f.viewers, 'viewer')}`).slice(0, 20).join('; ')}`;
  const curve = (x1: number, y1: number, x2: number, y2: number): string => `M${x1} ${y1}C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`;
  return (
    <section className="card map" aria-labelledby="map-title">
      <div className="map-head"><h2 id="map-title">Where streams flow</h2>
        <p className="muted">{streams.length === 0 ? 'Nobody publishes at the moment.' : `${plural(data?.total ?? 0, 'stream')}${(data?.total ?? 0) > STREAMS ? `; drawn are the ${STREAMS} most watched` : ''}`}{origins.length + edges.length > left.length + right.length && `; of ${count(origins.length + edges.length)} nodes the busiest are drawn`}</p></div>
      <div className="map-scroll" tabIndex={0} role="group" aria-label="Map, scrolls sideways">
        <svg viewBox={`0 0 990 ${tall}`} role="img" aria-label={says} className="map-picture" style={{ '--tall': tall } as React.CSSProperties}>
          {left.map((n, i) => published(n) > 0 && <path key={n.id} className="flow" d={curve(96, tall / 2, xs.left, y(i, left.length) + 18)} strokeWidth="2" />)}
          {flows.map((f) => {
            const a = left.findIndex((n) => n.id === f.from);
            const b = right.findIndex((n) => n.id === f.to);
            if (a < 0 || b < 0) return null;
            return <path key={`${f.from} ${f.to}`} className="flow" data-flow={`${f.from} ${f.to}`} strokeWidth={1.5 + (4.5 * f.streams) / most} d={curve(xs.left + W, y(a, left.length) + 18, xs.right, y(b, right.length) + 18)} />;
          })}
          {right.map((n, i) => n.viewers > 0 && alive(n) && <path key={n.id} className="flow" d={curve(xs.right + W, y(i, right.length) + 18, 894, tall / 2)} strokeWidth="2" />)}
          <text className="map-end" x="4" y={tall / 2 - 4}>Publishers</text><text className="map-figure" x="4" y={tall / 2 + 16}>{plural(data?.total ?? 0, 'stream')}</text>
          <text className="map-end" x="902" y={tall / 2 - 4}>Viewers</text><text className="map-figure" x="902" y={tall / 2 + 16}>{count(live.totals?.viewers ?? 0)}</text>
          {[[left, xs.left] as const, [right, xs.right] as const].flatMap(([nodes, x]) => nodes.map((n, i) => (
            <g key={n.id} className={`map-node ${n.state}`} transform={`translate(${x} ${y(i, nodes.length) - 4})`}>
              <title>{`${n.id}: ${n.state}`}</title>
              <rect width={W} height={H - 8} rx="10" />
              <circle cx="16" cy={(H - 8) / 2} r="4" />
              <text className="map-name" x="30" y="19">{n.id.length > 24 ? `${n.id.slice(0, 23)}…` : n.id}</text>
              <text className="map-figure" x="30" y="35">{alive(n) ? `${plural(n.streams, 'stream')}, ${plural(n.viewers, 'viewer')}` : 'dead'}</text>
            </g>
          )))}
        </svg>
      </div>
      {streams.length > 0 && <ul className="map-streams" aria-label="Most watched streams">{streams.slice(0, 6).map((s) => <li key={`${s.app}/${s.id}`}><a href={link('streams', s.app, s.id)}>{s.app}/{s.id}</a> <span className="muted">{plural(s.viewers, 'viewer')}</span></li>)}</ul>}
    </section>
  );
}
