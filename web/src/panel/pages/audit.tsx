import { useState } from 'react';
import { ask, client, list, type Schemas } from '../api.js';
import type { PageProps } from '../app.js';
import { usePages, useSettled } from '../hooks.js';
import { Badge, Empty, Failed, Loading, PageHead, Search, Table, type Column } from '../parts.js';
import { plural, when } from '../words.js';

type Entry = Schemas['Entry'];

const columns: Column<Entry>[] = [
  { key: 'at', title: 'When', width: '11.5rem', wideOnly: true, cell: (e) => <time dateTime={e.at}>{when(e.at)}</time> },
  { key: 'who', title: 'Who', width: 'minmax(8rem, 1.2fr)', narrow: 'minmax(0, 1fr)', cell: (e) => <span className="two"><strong className="clip">{e.who || 'somebody'}</strong><span className="muted">{e.from}{e.key !== undefined && ', by an API key'}</span></span> },
  { key: 'what', title: 'What', width: 'minmax(9rem, 2fr)', narrow: 'minmax(0, 1fr)', cell: (e) => <span className="two"><span className="clip">{e.action}{e.target !== undefined && `: ${e.target}`}</span>{e.app !== undefined && <span className="muted">in {e.app}</span>}</span> },
  { key: 'node', title: 'Node', width: 'minmax(5rem, .7fr)', wideOnly: true, cell: (e) => <span className="clip">{e.node}</span> },
  { key: 'result', title: 'Result', width: '9.5rem', narrow: '6rem', cell: (e) => <span className="clip" title={e.detail}><Badge tone={e.result === 'ok' ? 'good' : 'bad'}>{e.result}</Badge></span> },
];

export function Audit(_: PageProps) {
  const [search, setSearch] = useState('');
  const needle = useSettled(search);
  const pages = usePages((offset, size) => ask(client.GET('/rest/v2/audit', { params: { query: { offset, size, search: needle } } }))
    .then(({ data, response }) => ({ rows: list(data), total: Number(response.headers.get('X-Total-Count')) })), [needle]);
  return (
    <>
      <PageHead title="Audit log" note={pages.total === undefined ? undefined : plural(pages.total, 'entry', 'entries')}>
        <Search label="Find in the log" value={search} onChange={setSearch} />
        <button type="button" className="button" onClick={pages.reload}>Look again</button>
      </PageHead>
      {pages.problem !== undefined && <Failed problem={pages.problem} retry={pages.reload} />}
      {pages.total === undefined ? pages.problem === undefined && <Loading what="the log" />
        : pages.total === 0 ? <Empty title={needle === '' ? 'Nothing was done yet' : 'Nothing like that was done'} />
          : <Table label="Audit log" columns={columns} count={pages.total} row={pages.at} rowKey={(i) => String(i)} want={pages.want} />}
    </>
  );
}
