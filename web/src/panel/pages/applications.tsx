import { useEffect, useState, type FormEvent } from 'react';
import { Problem, asProblem } from '../../wire/problem.js';
import { ask, client, list, may, type Me } from '../api.js';
import type { PageProps } from '../app.js';
import { link, useLoad } from '../hooks.js';
import { originOf } from '../../wire/address.js';
import { origins } from '../origins.js';
import { Empty, Failed, Field, FormDialog, Loading, PageHead } from '../parts.js';
import { plural, when } from '../words.js';
import { diff, Fields, words, type Change, type Schema, type Value } from './form.js';

export function Applications({ me, rest }: PageProps) {
  if (rest[0] === 'server') return <Settings key="server" me={me} app={undefined} />;
  if (rest[0] === 'of' && rest[1] !== undefined) return <Settings key={rest[1]} me={me} app={rest[1]} />;
  return <List me={me} />;
}

function List({ me }: { me: Me }) {
  const apps = useLoad(() => ask(client.GET('/rest/v2/applications')).then((r) => list(r.data.applications)), []);
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState<string>();
  const writes = may(me, 'apps:write');
  return (
    <>
      <PageHead title="Applications" note={apps.data === undefined ? undefined : plural(apps.data.length, 'application')}>
        {may(me, 'settings:read') && <a className="button" href={link('applications', 'server')}>Settings of the cluster</a>}
        {writes && <button type="button" className="button primary" onClick={() => setAdding(true)}>Make an application</button>}
      </PageHead>
      {apps.problem !== undefined && <Failed problem={apps.problem} retry={apps.reload} />}
      {apps.data === undefined ? apps.problem === undefined && <Loading what="applications" />
        : apps.data.length === 0 ? <Empty title="There is no application" />
          : <ul className="cards">{apps.data.map((app) => (
            <li key={app} className="card" data-app={app}>
              <h2>{app}</h2>
              <div className="card-links">
                <a className="button" href={link('applications', 'of', app)}>Settings<span className="visually-hidden"> of {app}</span></a>
                <a className="button" href={`${originOf(origins.publish, location)}/${encodeURIComponent(app)}/`}>Publish<span className="visually-hidden"> in {app}</span></a>
                <a className="button" href={`${originOf(origins.play, location)}/${encodeURIComponent(app)}/player.html`}>Watch<span className="visually-hidden"> in {app}</span></a>
                {writes && <button type="button" className="button" onClick={() => setRemoving(app)}>Delete<span className="visually-hidden"> {app}</span></button>}
              </div>
            </li>))}</ul>}
      <FormDialog title="Make an application" action="Make" open={adding} onClose={() => setAdding(false)} note="It is a space of its own for streams, with settings of its own."
        onSubmit={(f) => ask(client.POST('/rest/v2/applications/{app}', { params: { path: { app: String(f.get('name')) } } })).then(apps.reload)}>
        <Field label="Name" name="name" required maxLength={32} pattern="[A-Za-z0-9_\-]+" hint="Letters, digits, - and _" autoComplete="off" spellCheck={false} autoCapitalize="none" />
      </FormDialog>
      <FormDialog title={`Delete ${removing ?? ''}?`} action="Delete" danger open={removing !== undefined} onClose={() => setRemoving(undefined)} note="Nobody can publish to it or play from it any more."
        onSubmit={() => ask(client.DELETE('/rest/v2/applications/{app}', { params: { path: { app: removing ?? '' } } })).then(apps.reload)} />
    </>
  );
}

interface Version {
  version: number;
  at: string;
  by: string;
  note: string | undefined;
}

/** The operations for an application's settings, or the cluster's. */
function operations(app: string | undefined) {
  const params = { path: { app: app ?? '' } };
  const seen = (r: Response): number => Number(r.headers.get('X-Settings-Version') ?? -1);
  const entry = (v: object): Version => {
    const of = v as Record<string, unknown>;
    return { version: Number(of['version'] ?? 0), at: String(of['at'] ?? ''), by: String(of['by'] ?? of['who'] ?? ''), note: of['note'] as string | undefined };
  };
  return app === undefined ? {
    get: () => ask(client.GET('/rest/v2/server-settings')).then((r) => ({ value: r.data as Value, version: seen(r.response) })),
    set: (body: Value, version: number) => ask(client.POST('/rest/v2/server-settings', { params: { query: { version } }, body })),
    versions: () => ask(client.GET('/rest/v2/server-settings/versions')).then((r) => list(r.data).map(entry)),
    restore: (version: number) => ask(client.POST('/rest/v2/server-settings/versions/{version}/restore', { params: { path: { version } } })),
  } : {
    get: () => ask(client.GET('/rest/v2/applications/settings/{app}', { params })).then((r) => ({ value: r.data as Value, version: seen(r.response) })),
    set: (body: Value, version: number) => ask(client.POST('/rest/v2/applications/settings/{app}', { params: { ...params, query: { version } }, body })),
    versions: () => ask(client.GET('/rest/v2/applications/settings/{app}/versions', { params })).then((r) => list(r.data).map(entry)),
    restore: (version: number) => ask(client.POST('/rest/v2/applications/settings/{app}/versions/{version}/restore', { params: { path: { app, version } } })),
  };
}

const schemas = (): Promise<Record<string, Schema>> => fetch('/openapi.json').then((r) => r.json() as Promise<{ components: { schemas: Record<string, Schema> } }>, () => { throw new Problem('unreachable'); }).then((d) => d.components.schemas);
/** Lines without the empty ones, which are there while somebody types. */
const tidy = (v: unknown): unknown => (Array.isArray(v) ? v.filter((x) => x !== '').map(tidy) : typeof v === 'object' && v !== null ? Object.fromEntries(Object.entries(v).map(([k, x]) => [k, tidy(x)])) : v);

function Settings({ me, app }: { me: Me; app: string | undefined }) {
  const run = operations(app);
  const loaded = useLoad(run.get, [app]);
  const described = useLoad(schemas, []);
  const versions = useLoad(run.versions, [app]);
  const [value, setValue] = useState<Value>();
  const [changes, setChanges] = useState<Change[]>();
  const [back, setBack] = useState<Version>();
  useEffect(() => setValue(loaded.data?.value), [loaded.data]);
  const writes = may(me, 'settings:write') || (app !== undefined && me.apps[app] === 'administrator');
  const reload = (): void => { loaded.reload(); versions.reload(); };
  const problem = loaded.problem ?? described.problem;
  const all = described.data;
  const schema = all?.[app === undefined ? 'Cluster' : 'App'];
  const same = diff(loaded.data?.value, tidy(value)).length === 0;
  const review = (e: FormEvent): void => { e.preventDefault(); setChanges(diff(loaded.data?.value, tidy(value))); };
  return (
    <>
      <p className="crumbs"><a href={link('applications')}>Applications</a> / {app ?? 'the cluster'}</p>
      <PageHead title={app === undefined ? 'Settings of the cluster' : `Settings of ${app}`} note={writes ? 'Every node has a change within two seconds.' : 'You may look, and change nothing.'} />
      {problem !== undefined && <Failed problem={asProblem(problem)} retry={reload} />}
      {value === undefined || schema === undefined || all === undefined ? problem === undefined && <Loading what="settings" /> : (
        <form className="card form settings" onSubmit={review}>
          <Fields schema={schema} all={all} value={value} onChange={setValue} disabled={!writes} />
          {writes && <div className="form-end"><button type="button" className="button" disabled={same} onClick={() => setValue(loaded.data?.value)}>Undo</button><button type="submit" className="button primary" disabled={same}>Look at the changes…</button></div>}
        </form>
      )}
      <section className="card" aria-labelledby="versions"><h2 id="versions">Versions</h2>
        {versions.problem !== undefined && <Failed problem={versions.problem} retry={versions.reload} />}
        {versions.data === undefined ? versions.problem === undefined && <Loading what="versions" />
          : versions.data.length === 0 ? <p className="muted">Nothing was changed yet.</p>
            : <ul className="plain-list">{versions.data.map((v, i) => (
              <li key={v.version}><span className="two"><strong>Version {v.version}</strong><span className="muted">{v.by}{v.at !== '' && ` · ${when(v.at)}`}{v.note !== undefined && v.note !== '' && ` · ${v.note}`}</span></span>
                {i === 0 ? <span className="chip">in force</span> : writes && <button type="button" className="button" onClick={() => setBack(v)}>Go back<span className="visually-hidden"> to version {v.version}</span></button>}</li>))}</ul>}
      </section>
      <FormDialog title="What changes" action="Save" open={changes !== undefined} onClose={() => setChanges(undefined)}
        onSubmit={() => run.set(tidy(value) as Value, loaded.data?.version ?? -1).then(reload)}>
        <ul className="changes">{(changes ?? []).map((c) => <li key={c.path}><strong>{c.path.split('.').map(words).join(' › ')}</strong><del>{c.before}</del><ins>{c.after}</ins></li>)}</ul>
      </FormDialog>
      <FormDialog title={`Go back to version ${back?.version ?? ''}?`} action="Go back" open={back !== undefined} onClose={() => setBack(undefined)} note="It makes a new version which is as that one was."
        onSubmit={() => run.restore(back!.version).then(reload)} />
    </>
  );
}
