import { useState } from 'react';
import { ask, client, list, may, type Schemas } from '../api.js';
import type { PageProps } from '../app.js';
import { usePages, useSettled } from '../hooks.js';
import { Actions, Badge, Choose, Empty, Failed, Field, FormDialog, Loading, PageHead, Search, Table, type Column } from '../parts.js';
import { plural, when } from '../words.js';

type User = Schemas['User'];
type Kind = NonNullable<User['userType']>;

const roles: [Kind, string][] = [['ADMIN', 'Administrator: everything'], ['USER', 'Operator: streams and nodes'], ['READ_ONLY', 'Read-only: looks']];
const short: Record<string, string> = { ADMIN: 'Administrator', USER: 'Operator', READ_ONLY: 'Read-only' };
/** The role everywhere, and those in applications. */
const rolesOf = (u: User): string => [
  ...(u.scope === 'system' && u.userType !== undefined ? [short[u.userType] ?? u.userType] : []),
  ...Object.entries(u.appNameUserType ?? {}).map(([app, r]) => `${short[r] ?? r} in ${app}`),
].join(', ') || 'none';

type Doing = { what: 'add' } | { what: 'edit' | 'password' | 'remove'; user: User };

export function Users({ me }: PageProps) {
  const [search, setSearch] = useState('');
  const needle = useSettled(search);
  const [doing, setDoing] = useState<Doing>();
  const pages = usePages((offset, size) => ask(client.GET('/rest/v2/user-list', { params: { query: { offset, size, search: needle } } }))
    .then(({ data, response }) => ({ rows: list(data), total: Number(response.headers.get('X-Total-Count')) })), [needle]);
  const writes = may(me, 'users:write');
  const change = (u: User, edit: Partial<User> & { newPassword?: string }): Promise<unknown> => {
    const { created: _c, fullName: _f, ...rest } = u;
    return ask(client.PUT('/rest/v2/users', { body: { ...rest, ...edit } as Schemas['UserInputBody'] })).then(pages.reload);
  };
  const columns: Column<User>[] = [
    { key: 'name', title: 'Name', width: 'minmax(10rem, 2fr)', narrow: 'minmax(0, 1.5fr)', cell: (u) => <span className="two"><strong className="clip">{u.email}</strong>{u.email === me.name ? <span className="muted">that is you</span> : (u.fullName ?? '') !== '' && <span className="muted">{u.fullName}</span>}</span> },
    { key: 'role', title: 'Role', width: 'minmax(8rem, 1.5fr)', narrow: 'minmax(0, 1fr)', cell: (u) => <span className="clip" title={rolesOf(u)}>{rolesOf(u)}</span> },
    { key: 'state', title: 'State', width: '7rem', wideOnly: true, cell: (u) => <Badge tone={u.blocked === true ? 'bad' : 'good'}>{u.blocked === true ? 'blocked' : 'active'}</Badge> },
    { key: 'created', title: 'Made', width: '12rem', wideOnly: true, cell: (u) => (u.created === undefined ? '' : when(u.created)) },
  ];
  if (writes) {
    columns.push({ key: 'do', title: '', width: '3rem', cell: (u) => (u.email === me.name ? null : (
      <Actions label={`Actions on ${u.email}`} choices={[
        { label: 'Change the role…', run: () => setDoing({ what: 'edit', user: u }) },
        { label: 'Set a password…', run: () => setDoing({ what: 'password', user: u }) },
        { label: u.blocked === true ? 'Unblock' : 'Block', run: () => void change(u, { blocked: u.blocked !== true }) },
        { label: 'Remove…', danger: true, run: () => setDoing({ what: 'remove', user: u }) },
      ]} />
    )) });
  }
  const user = doing !== undefined && 'user' in doing ? doing.user : undefined;
  const close = (): void => setDoing(undefined);
  return (
    <>
      <PageHead title="Users" note={pages.total === undefined ? undefined : plural(pages.total, 'account')}>
        <Search label="Find an account" value={search} onChange={setSearch} />
        {writes && <button type="button" className="button primary" onClick={() => setDoing({ what: 'add' })}>Add an account</button>}
      </PageHead>
      {pages.problem !== undefined && <Failed problem={pages.problem} retry={pages.reload} />}
      {pages.total === undefined ? pages.problem === undefined && <Loading what="accounts" />
        : pages.total === 0 ? <Empty title="No account is called like that" />
          : <Table label="Accounts" columns={columns} count={pages.total} row={pages.at} rowKey={(i) => pages.at(i)?.email ?? String(i)} want={pages.want} />}
      <FormDialog title="Add an account" action="Add" open={doing?.what === 'add'} onClose={close}
        onSubmit={(f) => ask(client.POST('/rest/v2/users', { body: { email: String(f.get('name')), password: String(f.get('password')), userType: f.get('role') as Kind } })).then(pages.reload)}>
        <Field label="Name" name="name" required maxLength={200} autoComplete="off" spellCheck={false} autoCapitalize="none" />
        <Field label="Password" name="password" type="password" required minLength={10} maxLength={256} autoComplete="new-password" hint="Ten characters or more." />
        <Choose label="Role" name="role" options={roles} defaultValue="READ_ONLY" />
      </FormDialog>
      <FormDialog title={`Role of ${user?.email ?? ''}`} action="Change" open={doing?.what === 'edit'} onClose={close} note="The sessions of the account follow within two seconds. Roles in single applications stay."
        onSubmit={(f) => change(user!, { userType: f.get('role') as Kind, scope: 'system' })}>
        <Choose label="Role" name="role" options={roles} defaultValue={user?.userType} />
      </FormDialog>
      <FormDialog title={`Password of ${user?.email ?? ''}`} action="Set" open={doing?.what === 'password'} onClose={close} note="All sessions of the account end."
        onSubmit={(f) => change(user!, { newPassword: String(f.get('password')) })}>
        <Field label="New password" name="password" type="password" required minLength={10} maxLength={256} autoComplete="new-password" />
      </FormDialog>
      <FormDialog title={`Remove ${user?.email ?? ''}?`} action="Remove" danger open={doing?.what === 'remove'} onClose={close} note="Its sessions and API keys end, too. That can’t be taken back."
        onSubmit={() => ask(client.DELETE('/rest/v2/users/{name}', { params: { path: { name: user!.email } } })).then(pages.reload)} />
    </>
  );
}
