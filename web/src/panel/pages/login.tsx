import { useEffect, useState, type FormEvent } from 'react';
import { asProblem, type Problem } from '../../wire/problem.js';
import { ask, client } from '../api.js';
import { Failed, Field, Loading } from '../parts.js';

/** Log-in; or, with the token of a link, the first administrator. */
export function LogIn({ token, onDone }: { token: string | undefined; onDone: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  const [busy, setBusy] = useState(false);
  const [awaited, setAwaited] = useState<boolean>(); // there is no account yet
  useEffect(() => {
    document.title = 'Log in · Sluice';
    ask(client.GET('/rest/v2/first-login-status')).then(({ data }) => setAwaited(data.success), (err: unknown) => { setProblem(asProblem(err)); setAwaited(false); });
  }, []);
  const submit = async (e: FormEvent<HTMLFormElement>): Promise<void> => {
    e.preventDefault();
    const f = new FormData(e.currentTarget);
    const body = { email: String(f.get('name')), password: String(f.get('password')) };
    setBusy(true);
    setProblem(undefined);
    try {
      if (token === undefined) await ask(client.POST('/rest/v2/users/authenticate', { body }));
      else await ask(client.POST('/rest/v2/users/initial', { body: { ...body, token } }));
      if (token !== undefined) history.replaceState(null, '', '#/');
      onDone();
    } catch (err) {
      setProblem(asProblem(err));
      setBusy(false);
    }
  };
  if (awaited === undefined) return <Loading what="the log-in" />;
  if (token === undefined && awaited) {
    return (
      <section className="card sign" data-testid="awaits-first">
        <h1>This cluster has no account yet</h1>
        <p className="muted">The server printed a link when it started. Open it to become the first administrator. Is it gone? This prints another:</p>
        <pre><code>sluice users link</code></pre>
      </section>
    );
  }
  const first = token !== undefined;
  return (
    <form className="card sign form" onSubmit={(e) => void submit(e)} data-testid={first ? 'first-run' : 'log-in'}>
      <h1>{first ? 'Make yourself the administrator' : 'Log in'}</h1>
      {first && <p className="muted">The first account may do everything. It can make others for your colleagues.</p>}
      <Field label="Name" name="name" autoComplete="username" required autoFocus maxLength={200} spellCheck={false} autoCapitalize="none" {...(first ? { hint: 'Such as an e-mail address.' } : {})} />
      <Field label="Password" name="password" type="password" required maxLength={256}
        {...(first ? { minLength: 10, autoComplete: 'new-password', hint: 'Ten characters or more. Some plain words in a row are good.' } : { autoComplete: 'current-password' })} />
      {problem !== undefined && <Failed problem={problem} />}
      <button type="submit" className="button primary" disabled={busy}>{first ? 'Make the account' : 'Log in'}</button>
    </form>
  );
}
