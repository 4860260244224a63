import { CSPProvider } from '@base-ui/react/csp-provider';
import { Component, lazy, Suspense, useCallback, useEffect, useRef, useState, type ComponentType, type ReactNode } from 'react';
import { bindThemeButton } from '../ui/theme.js';
import type { IconName } from '../ui/icons.js';
import { asProblem, Problem } from '../wire/problem.js';
import { ask, client, may, maySome, whenSignedOut, whoAmI, type Me } from './api.js';
import { link, useRoute } from './hooks.js';
import { startLive, stopLive, useLive } from './live.js';
import { Empty, Failed, Icon, Loading } from './parts.js';
import { LogIn } from './pages/login.js';

export interface PageProps {
  me: Me;
  /** What stands in the address behind the page's name. */
  rest: string[];
}

interface Entry {
  path: string;
  title: string;
  icon: IconName;
  page: ComponentType<PageProps>;
  shown: (me: Me) => boolean;
}

const named = <K extends string>(load: () => Promise<Record<K, ComponentType<PageProps>>>, name: K): ComponentType<PageProps> =>
  lazy(() => load().then((m): { default: ComponentType<PageProps> } => ({ default: m[name] }))) as ComponentType<PageProps>;

const pages: Entry[] = [
  { path: 'overview', title: 'Overview', icon: 'chart', page: named(() => import('./pages/overview.js'), 'Overview'), shown: (me) => may(me, 'cluster:read') },
  { path: 'cluster', title: 'Cluster', icon: 'nodes', page: named(() => import('./pages/cluster.js'), 'Cluster'), shown: (me) => may(me, 'cluster:read') },
  { path: 'streams', title: 'Streams', icon: 'broadcast', page: named(() => import('./pages/streams.js'), 'Streams'), shown: (me) => maySome(me, 'streams:read') },
  { path: 'applications', title: 'Applications', icon: 'gear', page: named(() => import('./pages/applications.js'), 'Applications'), shown: (me) => maySome(me, 'apps:read') },
  { path: 'users', title: 'Users', icon: 'people', page: named(() => import('./pages/users.js'), 'Users'), shown: (me) => may(me, 'users:read') },
  { path: 'audit', title: 'Audit log', icon: 'lines', page: named(() => import('./pages/audit.js'), 'Audit'), shown: (me) => may(me, 'audit:read') },
  { path: 'account', title: 'Account', icon: 'person', page: named(() => import('./pages/account.js'), 'Account'), shown: () => true },
];

type Session = { state: 'asking' } | { state: 'out' } | { state: 'in'; me: Me } | { state: 'failed'; problem: Problem };

export function App() {
  const [session, set] = useState<Session>({ state: 'asking' });
  const route = useRoute();
  const look = useCallback(() => {
    whoAmI().then((me) => set(me === undefined ? { state: 'out' } : { state: 'in', me }), (err: unknown) => set({ state: 'failed', problem: asProblem(err) }));
  }, []);
  useEffect(() => {
    whenSignedOut(() => { stopLive(); set({ state: 'out' }); });
    look();
  }, [look]);
  useEffect(() => { document.body.dataset['session'] = session.state; }, [session.state]);
  const token = route[0] === 'first' ? route[1] : undefined;
  let body: ReactNode;
  if (session.state === 'asking') body = <Loading what="the panel" />;
  else if (session.state === 'failed') body = <div className="center"><Failed problem={session.problem} retry={look} /></div>;
  else if (session.state === 'out') body = <main className="center"><LogIn token={token} onDone={look} /></main>;
  else return <CSPProvider disableStyleElements><Shell me={session.me} route={route} onOut={() => { stopLive(); set({ state: 'out' }); }} /></CSPProvider>;
  return <><Bar />{body}</>;
}

function Bar({ children }: { children?: ReactNode }) {
  const theme = useRef<HTMLButtonElement>(null);
  useEffect(() => { if (theme.current !== null) bindThemeButton(theme.current); }, []);
  return (
    <header className="bar">
      <a className="brand" href="#/" aria-label="Sluice, start page"><Mark /><span>Sluice</span></a>
      <span className="grow" />
      {children}
      <button type="button" className="icon-button" data-testid="theme" aria-label="Colours" ref={theme} />
    </header>
  );
}

const Mark = () => (
  <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" fill="var(--brand)" />
    <path d="M9 6.5v9M23 6.5v9" stroke="#fff" strokeOpacity=".55" strokeWidth="2.4" strokeLinecap="round" />
    <rect x="11.8" y="5.3" width="8.4" height="8.7" rx="1.6" fill="#fff" />
    <path d="M6.5 20.3c3.2-2.7 6.3-2.7 9.5 0s6.3 2.7 9.5 0M6.5 25.5c3.2-2.7 6.3-2.7 9.5 0s6.3 2.7 9.5 0" fill="none" stroke="#fff" strokeWidth="2.4" strokeLinecap="round" />
  </svg>
);

function Shell({ me, route, onOut }: { me: Me; route: string[]; onOut: () => void }) {
  const mine = pages.filter((p) => p.shown(me));
  const at = route[0] === '' || route[0] === 'first' ? mine[0] : pages.find((p) => p.path === route[0]);
  const allowed = at !== undefined && mine.includes(at);
  useEffect(() => { if (maySome(me, 'streams:read')) startLive(); }, [me]);
  const main = useRef<HTMLElement>(null);
  const before = useRef(at);
  useEffect(() => { // as a page that was opened: from its top, and told to screen readers
    if (before.current === at) return;
    before.current = at;
    scrollTo(0, 0);
    document.querySelector('.side [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
    main.current?.focus();
  }, [at]);
  const logOut = (): void => void ask(client.DELETE('/rest/v2/users/logout')).then(onOut, onOut);
  return (
    <div className="shell">
      <a className="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.focus(); }}>Skip to the page</a>
      <Bar><LiveState /><span className="who" title={roleName(me)}>{me.name}</span><button type="button" className="text-button" onClick={logOut}>Log out</button></Bar>
      <nav className="side" aria-label="Pages">
        {mine.map((p) => <a key={p.path} href={link(p.path)} aria-current={p === at ? 'page' : undefined}><Icon name={p.icon} />{p.title}</a>)}
      </nav>
      <main id="main" className="page" tabIndex={-1} ref={main}>
        <Guard key={at?.path}>
          {allowed && at !== undefined
            ? <Suspense fallback={<Loading what={at.title} />}><at.page me={me} rest={route.slice(1)} /></Suspense>
            : <Empty title={at === undefined ? 'There is no such page' : 'Your role does not have this page'}><p className="muted">Choose one from the list.</p></Empty>}
        </Guard>
      </main>
    </div>
  );
}

export const roleName = (me: Me): string => ({ administrator: 'Administrator', operator: 'Operator', 'read-only': 'Read-only' })[me.role as string] ?? 'Single applications';

/** What is wrong with the connection, in words; nothing when it is well. */
function LiveState() {
  const live = useLive();
  const words = live.state === 'lost' ? 'Connection lost: shown is what was last heard' : live.away ? 'The registry can’t be reached: shown is what it said last' : '';
  return <span role="status" className="live-state" data-live={live.away ? 'away' : live.state}>{words !== '' && <span className="badge warn"><span className="badge-dot" aria-hidden="true" />{words}</span>}</span>;
}

/** Keeps a page's fault from taking the others with it. */
class Guard extends Component<{ children: ReactNode }, { problem?: Problem }> {
  override state: { problem?: Problem } = {};
  static getDerivedStateFromError(err: unknown): { problem: Problem } { return { problem: asProblem(err) }; }
  override render(): ReactNode {
    return this.state.problem === undefined ? this.props.children : <Failed problem={this.state.problem} retry={() => location.reload()} />;
  }
}
