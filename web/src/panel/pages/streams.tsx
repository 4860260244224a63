import { encode } from 'uqr';
import { useEffect, useMemo, useState } from 'react';
import { playLink, whepUrl, whipUrl } from '../../wire/address.js';
import { ask, client, list, may, type Me, type Stream } from '../api.js';
import type { PageProps } from '../app.js';
import { link, useLoad, usePages, useSettled } from '../hooks.js';
import { useLive } from '../live.js';
import { origins } from '../origins.js';
import { Badge, CopyText, Empty, Failed, FormDialog, Loading, PageHead, Search, Table, Tile, type Column, type Sorting } from '../parts.js';
import { bits, count, plural, span } from '../words.js';

export function Streams({ rest, me }: PageProps) {
  return rest.length >= 2 ? <Detail me={me} app={rest[0]!} id={rest[1]!} /> : <List key={me.name} />;
}

const State = ({ s }: { s: Stream }) => <Badge tone={s.state === 'broadcasting' ? 'good' : 'warn'}>{s.state === 'broadcasting' ? 'live' : 'interrupted'}</Badge>;
const edgesOf = (s: Stream): string[] => list(s.nodes).map((n) => n.node).filter((n) => n !== s.origin);

function List() {
  const live = useLive();
  const [search, setSearch] = useState('');
  const [sorting, setSorting] = useState<Sorting>({ by: 'name', desc: false });
  const needle = useSettled(search);
  const pages = usePages(
    (offset, size) => ask(client.GET('/rest/v2/cluster/streams', { params: { query: { offset, size, search: needle, sort: sorting.by as 'name', desc: sorting.desc } } }))
      .then(({ data, response }) => ({ rows: list(data), total: Number(response.headers.get('X-Total-Count')) })),
    [needle, sorting.by, sorting.desc], live.streams);
  const columns: Column<Stream>[] = useMemo(() => [
    { key: 'name', title: 'Stream', width: 'minmax(10rem, 2fr)', narrow: 'minmax(0, 2fr)', sort: 'name', cell: (s) => <span className="two"><a href={link('streams', s.app, s.id)}>{s.id}</a><span className="muted">{s.app}</span></span> },
    { key: 'state', title: 'State', width: '8rem', narrow: '6.75rem', cell: (s) => <State s={s} /> },
    { key: 'codecs', title: 'Codecs', width: 'minmax(6rem, 1fr)', wideOnly: true, cell: (s) => list(s.codecs).join(', ') },
    { key: 'origin', title: 'Origin', width: 'minmax(7rem, 1fr)', wideOnly: true, sort: 'origin', cell: (s) => <span className="two"><span className="clip">{s.origin}</span>{s.backup !== undefined && <span className="muted">backup on {s.backup}</span>}</span> },
    { key: 'edges', title: 'Edges', width: 'minmax(7rem, 1.2fr)', wideOnly: true, cell: (s) => <span className="clip" title={edgesOf(s).join(', ')}>{edgesOf(s).length > 3 ? plural(edgesOf(s).length, 'edge') : edgesOf(s).join(', ') || 'none'}</span> },
    { key: 'started', title: 'Live for', width: '7rem', number: true, wideOnly: true, sort: 'started', cell: (s) => (s.started === undefined ? '' : span((live.at || Date.now()) - Date.parse(s.started))) },
    { key: 'viewers', title: 'Viewers', width: '5.5rem', narrow: '4.5rem', number: true, sort: 'viewers', cell: (s) => count(s.viewers) },
  ], [live.at]);
  return (
    <>
      <PageHead title="Streams" note={pages.total === undefined ? undefined : plural(pages.total, 'stream')}><Search label="Find a stream" value={search} onChange={setSearch} /></PageHead>
      {pages.problem !== undefined && <Failed problem={pages.problem} retry={pages.reload} />}
      {pages.total === undefined ? pages.problem === undefined && <Loading what="streams" />
        : pages.total === 0
          ? <Empty title={needle === '' ? 'Nobody publishes at the moment' : 'No stream is called like that'}>{needle === '' && <p className="muted">A stream is here as soon as somebody publishes it.</p>}</Empty>
          : <Table label="Streams" columns={columns} count={pages.total} row={pages.at} rowKey={(i) => { const s = pages.at(i); return s === undefined ? String(i) : `${s.app}/${s.id}`; }} want={pages.want} sorting={sorting} onSort={setSorting} />}
    </>
  );
}

function Detail({ me, app, id }: { me: Me; app: string; id: string }) {
  const [stopping, setStopping] = useState(false);
  const writes = may(me, 'streams:write') || ['operator', 'administrator'].includes(me.apps[app] ?? '');
  const live = useLive();
  const { data: s, problem, reload } = useLoad(() => ask(client.GET('/rest/v2/cluster/streams/{app}/{id}', { params: { path: { app, id } } })).then((r) => r.data), [app, id, live.streams]);
  const address = { app, id, token: '' };
  const player = playLink(address, origins.play, location);
  const play = new URL(player);
  const embed = `${play.origin}/${encodeURIComponent(app)}/play.html?id=${encodeURIComponent(id)}`;
  const offline = problem?.code === 'stream_offline';
  return (
    <>
      <p className="crumbs"><a href={link('streams')}>Streams</a> / {app}</p>
      <PageHead title={id} note={offline ? 'Nobody publishes it at the moment.' : undefined}>{s !== undefined && !offline && <><State s={s} />{writes && <button type="button" className="button" onClick={() => setStopping(true)}>Stop…</button>}</>}</PageHead>
      {problem !== undefined && !offline && <Failed problem={problem} retry={reload} />}
      {s === undefined && problem === undefined && <Loading what="the stream" />}
      {s !== undefined && !offline && (
        <>
          <dl className="tiles">
            <Tile label="Viewers">{count(s.viewers)}</Tile>
            <Tile label="Codecs">{list(s.codecs).join(', ') || 'not known yet'}</Tile>
            <Tile label="Origin">{s.origin}</Tile>
            {s.backup !== undefined && <Tile label="Backup">{s.backup}</Tile>}
            {s.started !== undefined && <Tile label="Live for">{span((live.at || Date.now()) - Date.parse(s.started))}</Tile>}
          </dl>
          <div className="split">
            <section className="card" aria-labelledby="preview"><h2 id="preview">Preview</h2>
              <iframe className="preview" title={`Preview of ${id}`} src={`/${encodeURIComponent(app)}/play.html?id=${encodeURIComponent(id)}&mute=true`} allow="autoplay; fullscreen; picture-in-picture" /></section>
            <section className="card" aria-labelledby="nodes"><h2 id="nodes">Nodes that have it</h2>
              <ul className="plain-list">{list(s.nodes).map((n) => <li key={n.node}><span>{n.node}{n.node === s.origin && <span className="chip">origin</span>}</span><span className="num">{plural(n.viewers, 'viewer')}</span></li>)}</ul></section>
          </div>
          <Health app={app} id={id} />
        </>
      )}
      <FormDialog title={`Stop ${id}?`} action="Stop" danger open={stopping} onClose={() => setStopping(false)} note="Its publisher is cut off, and that of its backup. Whoever may publish can come back."
        onSubmit={() => ask(client.POST('/{app}/rest/v2/broadcasts/{id}/stop', { params: { path: { app, id } } })).then(reload)} />
      <section className="card" aria-labelledby="urls"><h2 id="urls">Addresses</h2>
        <div className="urls"><div className="form">
          <CopyText label="Player" text={player} />
          <CopyText label="Code to embed it" text={`<iframe src="${embed}" width="640" height="360" allow="autoplay; fullscreen" title="${id}"></iframe>`} />
          <CopyText label="WHEP, to play" text={play.origin + whepUrl(address)} />
          <CopyText label="WHIP, to publish" text={new URL(playLink(address, origins.publish, location)).origin + whipUrl(address)} />
        </div><QR text={player} /></div>
      </section>
    </>
  );
}

/** A number that grows every few seconds, while somebody looks. */
function useBeat(ms: number): number {
  const [n, set] = useState(0);
  useEffect(() => {
    const t = setInterval(() => { if (!document.hidden) set((x) => x + 1); }, ms);
    return () => clearInterval(t);
  }, [ms]);
  return n;
}

/** Renditions, and the viewers who have it worst. */
function Health({ app, id }: { app: string; id: string }) {
  const beat = useBeat(3000);
  const path = { app, id };
  const renditions = useLoad(() => ask(client.GET('/{app}/rest/v2/broadcasts/{id}/stream-info', { params: { path } })).then((r) => list(r.data)), [app, id, beat]);
  const viewers = useLoad(() => ask(client.GET('/{app}/rest/v2/broadcasts/{id}/webrtc-client-stats/{offset}/{size}', { params: { path: { ...path, offset: 0, size: 10 }, query: { sort_by: 'worst' } } }))
    .then(({ data, response }) => ({ rows: list(data), total: Number(response.headers.get('X-Total-Count')) })), [app, id, beat]);
  const worst = viewers.data?.rows ?? [];
  return (
    <div className="split even">
      <section className="card" aria-labelledby="renditions"><h2 id="renditions">Renditions</h2>
        {renditions.problem !== undefined && renditions.data === undefined && <Failed problem={renditions.problem} />}
        <ul className="plain-list">{(renditions.data ?? []).map((r, i) => <li key={r.name + String(i)}><span>{r.videoHeight > 0 ? `${r.videoWidth} × ${r.videoHeight}` : r.name || 'as it is published'}<span className="chip">{r.videoCodec}</span></span><span className="num">{bits(r.videoBitrate)}</span></li>)}</ul>
      </section>
      <section className="card" aria-labelledby="worst"><h2 id="worst">Viewers, the worst first</h2>
        {viewers.problem !== undefined && viewers.data === undefined && <Failed problem={viewers.problem} />}
        {viewers.data !== undefined && worst.length === 0 && <p className="muted">Nobody watches.</p>}
        <ul className="plain-list">{worst.map((v) => <li key={v.clientId + v.node}><span className="two"><span>{v.clientIp}</span><span className="muted">on {v.node}{v.rendition !== '' && `, ${v.rendition}`}</span></span><span className="num">{(100 * v.packetLostRatio).toFixed(1)} % lost · {v.rttMs.toFixed(0)} ms</span></li>)}</ul>
        {viewers.data !== undefined && viewers.data.total > worst.length && <p className="hint">Of {count(viewers.data.total)} viewers.</p>}
      </section>
    </div>
  );
}

function QR({ text }: { text: string }) {
  const { data, size } = useMemo(() => encode(text), [text]);
  const d = data.flatMap((row, y) => row.map((on, x) => (on ? `M${x} ${y}h1v1h-1z` : ''))).join('');
  return <svg className="qr" viewBox={`-1 -1 ${size + 2} ${size + 2}`} role="img" aria-label="QR code of the player’s address" shapeRendering="crispEdges"><rect x="-1" y="-1" width={size + 2} height={size + 2} fill="#fff" /><path d={d} fill="#000" /></svg>;
}
