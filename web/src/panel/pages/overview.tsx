import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { useEffect, useRef } from 'react';
import type { PageProps } from '../app.js';
import { link } from '../hooks.js';
import { useLive, type Live, type Sample } from '../live.js';
import { Failed, Icon, Loading, PageHead, Tile } from '../parts.js';
import { Problem } from '../../wire/problem.js';
import { bits, count, percent, plural, span } from '../words.js';

interface Attention {
  text: string;
  to: string;
  way: string;
}

/** What needs somebody, in words, the worst first. */
export function attention(live: Live): Attention[] {
  const named = (state: string): string[] => live.nodes.filter((n) => n.state === state).map((n) => n.id);
  const names = (ids: string[]): string => (ids.length > 3 ? `${ids.slice(0, 3).join(', ')} and ${count(ids.length - 3)} more` : ids.join(', '));
  const out: Attention[] = [];
  const add = (text: string, to = link('cluster'), way = 'Show the cluster'): void => { out.push({ text, to, way }); };
  if (live.away) add('The registry can’t be reached. Media goes on; nobody can log in, and new streams are not found.');
  for (const role of ['origin', 'edge']) {
    const of = live.nodes.filter((n) => n.role === role || n.role === 'standalone');
    if (of.length > 0 && !of.some((n) => n.state === 'ready')) add(`No ${role} takes new ${role === 'origin' ? 'publishers' : 'viewers'}.`);
  }
  const dead = named('dead');
  if (dead.length > 0) add(`${names(dead)} ${dead.length === 1 ? 'is' : 'are'} dead: no heartbeat comes.`);
  const full = named('full');
  if (full.length > 0) add(`${names(full)} ${full.length === 1 ? 'takes' : 'take'} nobody new: ${live.nodes.find((n) => n.state === 'full')?.full ?? ''}.`);
  for (const g of live.groups) if (g.load > g.target) add(`The load of the ${g.role} nodes${g.region !== '' ? ` in ${g.region}` : ''} is ${percent(g.load)}, over its ${percent(g.target)}: ${g.reason}.`);
  const drains = named('draining');
  if (drains.length > 0) add(`${names(drains)} ${drains.length === 1 ? 'drains' : 'drain'}.`);
  const versions = new Set(live.nodes.filter((n) => n.state !== 'dead').map((n) => n.version));
  if (versions.size > 1) add(`The nodes run ${versions.size} versions.`);
  return out;
}

export function Overview(_: PageProps) {
  const live = useLive();
  if (live.empty || live.totals === undefined) return live.state === 'lost' ? <Failed problem={new Problem('unreachable')} /> : <Loading what="the overview" />;
  const t = live.totals;
  const needs = attention(live);
  const since = live.samples.length > 1 ? (live.samples.at(-1)!.at - live.samples[0]!.at) * 1000 : 0;
  return (
    <>
      <PageHead title="Overview" />
      <dl className="tiles big">
        <Tile label="Streams"><a href={link('streams')}>{count(t.streams)}</a></Tile>
        <Tile label="Viewers">{count(t.viewers)}</Tile>
        <Tile label="Egress">{bits(t.egress)}</Tile>
        <Tile label="CPU, mean">{percent(t.cpu)}</Tile>
        <Tile label="Nodes"><a href={link('cluster')}>{count(t.nodes)}</a></Tile>
      </dl>
      <section className="card" aria-labelledby="needs">
        <h2 id="needs">What needs attention</h2>
        {needs.length === 0
          ? <p className="well"><Icon name="check" />Nothing: {plural(t.nodes, 'node')} {t.nodes === 1 ? 'is' : 'are'} well.</p>
          : <ul className="needs">{needs.map((n) => <li key={n.text}><Icon name="alert" /><span>{n.text}</span><a href={n.to}>{n.way}</a></li>)}</ul>}
      </section>
      <h2 className="section-title">Since this page was opened{since > 0 && <span className="muted"> · {span(since)}</span>}</h2>
      <div className="charts">
        <Chart title="Viewers" samples={live.samples} value={(s) => s.totals.viewers} shown={count} />
        <Chart title="Streams" samples={live.samples} value={(s) => s.totals.streams} shown={count} />
        <Chart title="Egress" samples={live.samples} value={(s) => s.totals.egress} shown={bits} />
        <Chart title="CPU" samples={live.samples} value={(s) => s.totals.cpu} shown={percent} most={1} />
      </div>
    </>
  );
}

function Chart({ title, samples, value, shown, most }: { title: string; samples: Sample[]; value: (s: Sample) => number; shown: (v: number) => string; most?: number }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  useEffect(() => {
    const el = box.current!;
    const make = (): void => {
      plot.current?.destroy();
      const css = getComputedStyle(el);
      const colour = (name: string): string => css.getPropertyValue(name).trim();
      const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
      plot.current = new uPlot({
        width: el.clientWidth, height: 160, legend: { show: false }, cursor: { show: false },
        scales: { x: { range: (_u, min, max) => (Number.isFinite(max) ? [Math.min(min, max - 60), max] : [0, 60]) }, y: { range: (_u, _min, max) => [0, most ?? Math.max(1, (Number.isFinite(max) ? max : 0) * 1.15)] } },
        axes: [{ ...axis, grid: { show: false } }, { ...axis, size: 74, values: (_u, vs) => vs.map((v) => (Number.isInteger(v) || most !== undefined || v > 1000 ? shown(v) : '')) }],
        series: [{}, { stroke: colour('--accent'), width: 2, fill: colour('--accent-soft'), points: { show: false } }],
      }, [[], []], el);
    };
    make();
    const wide = new ResizeObserver(() => plot.current?.setSize({ width: el.clientWidth, height: 160 }));
    wide.observe(el);
    const theme = new MutationObserver(() => { make(); draw(); });
    theme.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
    return () => { wide.disconnect(); theme.disconnect(); plot.current?.destroy(); plot.current = undefined; };
  }, []);
  const draw = (): void => plot.current?.setData([samples.map((s) => s.at), samples.map(value)]);
  useEffect(draw, [samples]);
  const last = samples.at(-1);
  return (
    <figure className="card chart">
      <figcaption><span>{title}</span><strong>{last === undefined ? '' : shown(value(last))}</strong></figcaption>
      <div ref={box} className="plot" role="img" aria-label={last === undefined ? `${title}: no figures yet` : `${title}: now ${shown(value(last))}, at most ${shown(Math.max(...samples.map(value)))} since the page was opened`} />
    </figure>
  );
}
