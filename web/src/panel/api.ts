/** The server's REST, typed by its own description. */
import createClient from 'openapi-fetch';
import { Problem, problemOf } from '../wire/problem.js';
import type { components, paths } from './schema.js';

export type Schemas = components['schemas'];
export type Node = Schemas['LiveNode'];
export type Group = Schemas['LiveGroup'];
export type Totals = Schemas['LiveTotals'];
export type Stream = Schemas['LiveStream'];
export type Me = Schemas['Me'];

const CSRF = 'X-Sluice-CSRF';
let csrf = '';
let onSignedOut = (): void => undefined;

/** Is called when the server no longer knows the session. */
export function whenSignedOut(fn: () => void): void {
  onSignedOut = fn;
}

export const client = createClient<paths>({ baseUrl: location.origin });
client.use({
  onRequest({ request }) {
    if (request.method !== 'GET' && csrf !== '') request.headers.set(CSRF, csrf);
    return request;
  },
  onResponse({ response }) {
    csrf = response.headers.get(CSRF) ?? csrf;
    return response;
  },
});

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** What an operation returned, and the whole answer for its headers; a Problem is thrown. */
export async function ask<T>(call: Promise<Answer<T>>): Promise<{ data: T; response: Response }> {
  let answer: Answer<T>;
  try {
    answer = await call;
  } catch (err) {
    if (err instanceof DOMException && err.name === 'AbortError') throw err;
    throw new Problem('unreachable');
  }
  const { data, error, response } = answer;
  if (response.ok) return { data: data as T, response };
  const said = error as { code?: string; detail?: string; errors?: { location?: string; message: string }[] | null } | undefined;
  const wrong = (said?.errors ?? []).map((e) => `${(e.location ?? '').replace(/^body\./, '')}: ${e.message}`).join('; ');
  const problem = said?.code !== undefined ? new Problem(said.code, wrong || (said.detail ?? ''), response.status) : await problemOf(new Response('', response));
  if (problem.code === 'unauthorized') onSignedOut();
  throw problem;
}

/** Who is logged in; undefined: nobody. */
export async function whoAmI(): Promise<Me | undefined> {
  const { data, response } = await client.GET('/rest/v2/session').catch(() => { throw new Problem('unreachable'); });
  if (response.status === 401) return undefined;
  if (data === undefined) throw await problemOf(response.bodyUsed ? new Response('', response) : response);
  csrf = data.csrf ?? '';
  return data;
}

/** Lists are null when there is nothing, as Go has it. */
export const list = <T>(v: T[] | null | undefined): T[] => v ?? [];

/** Whether the account may do something on the whole server. */
export const may = (me: Me, action: string): boolean => list(me.actions).includes(action);
/** Whether it may somewhere: the server leaves out what it may not see. */
export const maySome = (me: Me, action: string): boolean => may(me, action) || Object.keys(me.apps).length > 0;
