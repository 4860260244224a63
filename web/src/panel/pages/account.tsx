import { useState } from 'react';
import { Problem } from '../../wire/problem.js';
import { ask, client, list } from '../api.js';
import { roleName, type PageProps } from '../app.js';
import { useLoad } from '../hooks.js';
import { CopyText, Failed, Field, FormDialog, Loading, PageHead, Choose } from '../parts.js';
import { when } from '../words.js';

const limits: [string, string][] = [['', 'Everything that you may do'], ['read', 'Reading only'], ['streams', 'Streams: read and write']];
const scopes: Record<string, string[]> = { '': [], read: ['streams:read', 'apps:read', 'settings:read', 'cluster:read'], streams: ['streams:read', 'streams:write'] };

export function Account({ me }: PageProps) {
  const keys = useLoad(() => ask(client.GET('/rest/v2/api-keys')).then((r) => list(r.data)), []);
  const sessions = useLoad(() => ask(client.GET('/rest/v2/sessions')).then((r) => list(r.data)), []);
  const [adding, setAdding] = useState(false);
  const [changing, setChanging] = useState(false);
  const [removing, setRemoving] = useState<{ id: string; label: string }>();
  const [made, setMade] = useState('');
  const [problem, setProblem] = useState<Problem>();
  const end = (id: string): void => { ask(client.DELETE('/rest/v2/sessions/{id}', { params: { path: { id } } })).then(sessions.reload, setProblem); };
  return (
    <>
      <PageHead title="Account" note={`${me.name} · ${roleName(me)}`}><button type="button" className="button" onClick={() => setChanging(true)}>Change the password</button></PageHead>
      {problem !== undefined && <Failed problem={problem} />}
      <section className="card" aria-labelledby="keys">
        <div className="card-head"><h2 id="keys">API keys</h2><button type="button" className="button" onClick={() => setAdding(true)}>Make a key</button></div>
        <p className="muted">For programs: each may do what you may, within its limits. <a href="/openapi">What they can ask for</a></p>
        {made !== '' && <div className="notice-box good" role="status"><div><strong>This is the key. It is shown only now.</strong><CopyText label="New API key" text={made} /></div></div>}
        {keys.problem !== undefined && <Failed problem={keys.problem} retry={keys.reload} />}
        {keys.data === undefined ? keys.problem === undefined && <Loading what="keys" />
          : keys.data.length === 0 ? <p className="muted">You have none.</p>
            : <ul className="plain-list">{keys.data.map((k) => (
              <li key={k.id}><span className="two"><strong>{k.label}</strong><span className="muted">{list(k.scopes).join(', ') || 'not limited'} · made {when(k.created)}{k.used !== undefined && ` · used ${when(k.used)}`}{k.expires !== undefined && ` · ends ${when(k.expires)}`}</span></span>
                <button type="button" className="button" onClick={() => setRemoving({ id: k.id, label: k.label })}>Delete<span className="visually-hidden"> {k.label}</span></button></li>))}</ul>}
      </section>
      <section className="card" aria-labelledby="sessions"><h2 id="sessions">Where you are logged in</h2>
        {sessions.problem !== undefined && <Failed problem={sessions.problem} retry={sessions.reload} />}
        {sessions.data === undefined ? sessions.problem === undefined && <Loading what="sessions" />
          : <ul className="plain-list">{sessions.data.map((s) => (
            <li key={s.id}><span className="two"><strong className="clip">{s.agent || 'A browser'}</strong><span className="muted">from {s.from} · since {when(s.created)}</span></span>
              {s.current ? <span className="chip">this one</span> : <button type="button" className="button" onClick={() => end(s.id)}>End<span className="visually-hidden"> the session of {s.from}</span></button>}</li>))}</ul>}
      </section>
      <FormDialog title="Make an API key" action="Make" open={adding} onClose={() => setAdding(false)}
        onSubmit={async (f) => {
          const days = Number(f.get('days'));
          const { data } = await ask(client.POST('/rest/v2/api-keys', { body: { label: String(f.get('label')), scopes: scopes[String(f.get('limit'))] ?? [],
            ...(days > 0 ? { expires: new Date(Date.now() + days * 86_400_000).toISOString() } : {}) } }));
          setMade(data.key);
          keys.reload();
        }}>
        <Field label="What it is for" name="label" required maxLength={100} />
        <Choose label="It may do" name="limit" options={limits} />
        <Choose label="It ends" name="days" options={[['30', 'after 30 days'], ['365', 'after a year'], ['0', 'never']]} />
      </FormDialog>
      <FormDialog title={`Delete the key ${removing?.label ?? ''}?`} action="Delete" danger open={removing !== undefined} onClose={() => setRemoving(undefined)} note="Programs that use it are refused within two seconds."
        onSubmit={() => ask(client.DELETE('/rest/v2/api-keys/{id}', { params: { path: { id: removing!.id } } })).then(keys.reload)} />
      <FormDialog title="Change the password" action="Change" open={changing} onClose={() => setChanging(false)} note="All your other sessions end."
        onSubmit={(f) => ask(client.POST('/rest/v2/users/password', { body: { password: String(f.get('old')), newPassword: String(f.get('new')) } })).then(sessions.reload)}>
        <Field label="Present password" name="old" type="password" required maxLength={256} autoComplete="current-password" />
        <Field label="New password" name="new" type="password" required minLength={10} maxLength={256} autoComplete="new-password" hint="Ten characters or more." />
      </FormDialog>
    </>
  );
}
