import { useMemo, useState } from 'react';
import { ask, client, list, may, type Group, type Node } from '../api.js';
import type { PageProps } from '../app.js';
import { useLoad } from '../hooks.js';
import { useLive } from '../live.js';
import { Actions, Badge, Empty, Failed, Field, FormDialog, Loading, PageHead, Search, Share, Table, Tile, type Column, type Tone } from '../parts.js';
import { Problem } from '../../wire/problem.js';
import { bits, count, percent, plural, span } from '../words.js';
import { FlowMap } from './map.js';

const tones: Record<string, Tone> = { ready: 'good', full: 'warn', draining: 'warn', dead: 'bad' };
const roleNames: Record<string, string> = { origin: 'Origins', edge: 'Edges', standalone: 'Standalone nodes', transcoder: 'Transcoders' };
const order = ['origin', 'standalone', 'transcoder', 'edge'];

type Row = { group: string; role: string; region: string; signal: Group | undefined; nodes: Node[] } | Node;
const isGroup = (r: Row): r is Exclude<Row, Node> => 'group' in r;

/** Nodes under the heading of their group. */
function grouped(nodes: Node[], groups: Group[]): Row[] {
  const by = new Map<string, Node[]>();
  for (const n of nodes) {
    const k = `${n.role}\n${n.region}`;
    by.set(k, [...(by.get(k) ?? []), n]);
  }
  const rank = (k: string): string => `${order.indexOf(k.split('\n')[0]!)} ${k}`;
  return [...by.keys()].sort((a, b) => (rank(a) < rank(b) ? -1 : 1)).flatMap((k): Row[] => {
    const [role = '', region = ''] = k.split('\n');
    const list = by.get(k) ?? [];
    return [{ group: k, role, region, nodes: list, signal: groups.find((g) => g.role === role && g.region === region) }, ...list];
  });
}

export function Cluster({ me }: PageProps) {
  const live = useLive();
  const [search, setSearch] = useState('');
  const [drain, setDrain] = useState<Node>();
  const [noting, setNoting] = useState<Node>();
  const [removing, setRemoving] = useState<Node>();
  const [problem, setProblem] = useState<Problem>();
  const notes = useLoad(notesOf, [live.nodes.length]);
  const writes = may(me, 'cluster:write');
  const rows = useMemo(() => {
    const needle = search.toLowerCase();
    return grouped(live.nodes.filter((n) => `${n.id} ${n.host} ${n.http} ${n.state} ${n.version}`.toLowerCase().includes(needle)), live.groups);
  }, [live.nodes, live.groups, search]);
  if (live.empty) return live.state === 'lost' ? <Failed problem={new Problem('unreachable')} /> : <Loading what="the cluster" />;
  const undrain = (n: Node): void => {
    setProblem(undefined);
    ask(client.DELETE('/rest/v2/cluster/nodes/{id}/drain', { params: { path: { id: n.id } } })).catch(setProblem);
  };
  const columns: Column<Row>[] = cells(live.at, notes.data ?? {}).map((c) => ({ ...c, cell: (r) => (isGroup(r) ? null : c.cell(r)) }));
  if (writes) {
    columns.push({
      key: 'do', title: '', width: '2.5rem',
      cell: (r) => isGroup(r) ? null : (
        <Actions label={`Actions on ${r.id}`} choices={[
          ...(r.state === 'dead' ? [] : r.drain ? [{ label: 'Take the drain back', run: () => undrain(r) }] : [{ label: 'Drain…', run: () => setDrain(r) }]),
          { label: 'Write a note…', run: () => setNoting(r) },
          ...(r.state === 'dead' ? [{ label: 'Remove…', danger: true, run: () => setRemoving(r) }] : []),
        ]} />
      ),
    });
  }
  const t = live.totals;
  return (
    <>
      <PageHead title="Cluster" note={me.role === 'read-only' ? 'You may look, and change nothing.' : undefined}>
        <Search label="Find a node" value={search} onChange={setSearch} />
      </PageHead>
      {problem !== undefined && <Failed problem={problem} />}
      {t !== undefined && (
        <dl className="tiles">
          <Tile label="Nodes">{count(t.nodes)}{t.dead > 0 && <span className="danger-text"> + {count(t.dead)} dead</span>}</Tile>
          <Tile label="Streams">{count(t.streams)}</Tile>
          <Tile label="Viewers">{count(t.viewers)}</Tile>
          <Tile label="Egress">{bits(t.egress)}</Tile>
          <Tile label="CPU, mean">{percent(t.cpu)}</Tile>
        </dl>
      )}
      <FlowMap live={live} />
      {rows.length === 0
        ? <Empty title={search === '' ? 'No node has joined' : 'No node is like that'}><p className="muted">{search === '' ? 'A node joins when it is started with this cluster’s registry.' : 'Look for a part of its name, host, address, state or version.'}</p></Empty>
        : (
          <Table label="Nodes" columns={columns} count={rows.length} row={(i) => rows[i]} rowKey={(i) => { const r = rows[i]; return r === undefined ? String(i) : isGroup(r) ? `group ${r.group}` : r.id; }}
            heading={(i) => { const r = rows[i]; return r !== undefined && isGroup(r) ? <GroupHead g={r} /> : null; }} />
        )}
      <FormDialog title={`Drain ${drain?.id ?? ''}`} action="Drain" danger open={drain !== undefined} onClose={() => setDrain(undefined)}
        note={drain === undefined ? '' : `It takes no new work and tells its ${plural(drain.viewers, 'viewer')} to move. When they have, or when the time is over, it ends.${lastOf(drain, live.nodes) ? ' It is the last ready one of its role: its clients have nowhere to go.' : ''}`}
        onSubmit={(f) => ask(client.POST('/rest/v2/cluster/nodes/{id}/drain', { params: { path: { id: drain?.id ?? '' } }, body: { seconds: 60 * Number(f.get('minutes')) } }))}>
        <Field label="Minutes until it ends" name="minutes" type="number" min={1} max={1440} defaultValue={5} required />
      </FormDialog>
      <FormDialog title={`Note on ${noting?.id ?? ''}`} action="Save" open={noting !== undefined} onClose={() => setNoting(undefined)} note="For other operators. It stays with the node’s name."
        onSubmit={(f) => ask(client.PUT('/rest/v2/cluster/node/{id}/note', { params: { path: { id: noting?.id ?? '' }, query: { note: String(f.get('note')) } } })).then(notes.reload)}>
        <Field label="Note" name="note" maxLength={500} defaultValue={notes.data?.[noting?.id ?? '']} />
      </FormDialog>
      <FormDialog title={`Remove ${removing?.id ?? ''}?`} action="Remove" danger open={removing !== undefined} onClose={() => setRemoving(undefined)} note="It is dead. When it is started again it joins again."
        onSubmit={() => ask(client.DELETE('/rest/v2/cluster/node/{id}', { params: { path: { id: removing?.id ?? '' } } }))} />
    </>
  );
}

/** Operators' notes, by node. The server gives 500 nodes at a time. */
async function notesOf(): Promise<Record<string, string>> {
  const notes: Record<string, string> = {};
  for (let offset = 0; ; offset += 500) {
    const { data } = await ask(client.GET('/rest/v2/cluster/nodes/{offset}/{size}', { params: { path: { offset, size: 500 } } }));
    for (const n of list(data)) if (n.note !== '') notes[n.id] = n.note;
    if (list(data).length < 500) return notes;
  }
}

const lastOf = (n: Node, all: Node[]): boolean => !all.some((o) => o.id !== n.id && o.role === n.role && (o.state === 'ready' || o.state === 'full'));

function GroupHead({ g }: { g: Exclude<Row, Node> }) {
  const s = g.signal;
  return (
    <div className="group-head">
      <h2>{roleNames[g.role] ?? g.role}{g.region !== '' && ` · ${g.region}`}<span className="chip">{count(g.nodes.length)}</span></h2>
      {s !== undefined && (
        <p className="group-signal" title={s.reason}>
          <span>Load <Share value={s.load} mark={s.target} label={`Load ${percent(s.load)}; the group grows above ${percent(s.target)}`} /></span>
          <span className="muted">grows above {percent(s.target)}{s.desired !== s.nodes && `; wanted: ${plural(s.desired, 'node')}`}</span>
        </p>
      )}
    </div>
  );
}

const cells = (at: number, notes: Record<string, string>): Column<Node>[] => [
  { key: 'id', title: 'Node', width: 'minmax(8rem, 1.4fr)', narrow: 'minmax(0, 1.4fr)', cell: (n) => <span className="two"><strong>{n.id}</strong><span className="muted" title={notes[n.id]}>{n.host}, process {n.pid}{notes[n.id] !== undefined && ` · ${notes[n.id]}`}</span></span> },
  { key: 'state', title: 'State', width: 'minmax(6rem, .8fr)', narrow: '5.75rem', cell: (n) => (
    <span className="two"><Badge tone={tones[n.state] ?? 'quiet'}>{n.state}</Badge>
      {n.state === 'full' && <span className="muted">{n.full}</span>}
      {n.drain && n.drainUntil !== undefined && n.state !== 'dead' && <span className="muted">ends in {span(Date.parse(n.drainUntil) - at)}</span>}</span>) },
  { key: 'http', title: 'Address', width: 'minmax(8.5rem, 1fr)', wideOnly: true, cell: (n) => <span className="mono clip">{n.http}</span> },
  { key: 'version', title: 'Version', width: 'minmax(3.5rem, .6fr)', wideOnly: 'very', cell: (n) => <span className="clip" title={n.version}>{n.version}</span> },
  { key: 'cpu', title: 'CPU', width: '3.75rem', wideOnly: true, cell: (n) => <Share value={n.cpu} label={`CPU ${percent(n.cpu)}`} /> },
  { key: 'memory', title: 'Memory', width: '3.75rem', wideOnly: 'very', cell: (n) => <Share value={n.memory} label={`Memory ${percent(n.memory)}`} /> },
  { key: 'egress', title: 'Egress', width: '5.5rem', number: true, wideOnly: true, cell: (n) => bits(n.egress) },
  { key: 'streams', title: 'Streams', width: '3.75rem', number: true, wideOnly: 'very', cell: (n) => count(n.streams) },
  { key: 'viewers', title: 'Viewers', width: '4rem', narrow: '3.75rem', number: true, cell: (n) => count(n.viewers) },
  { key: 'heard', title: 'Heard', width: '4.75rem', number: true, wideOnly: true, cell: (n) => <time dateTime={n.lastHeartbeat}>{span(at - Date.parse(n.lastHeartbeat))} ago</time> },
];
