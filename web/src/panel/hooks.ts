/** Small hooks that pages share. */
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { asProblem, type Problem } from '../wire/problem.js';

/** The parts of the address behind #/. */
export function useRoute(): string[] {
  const hash = useSyncExternalStore(
    (fn) => { addEventListener('hashchange', fn); return () => removeEventListener('hashchange', fn); },
    () => location.hash,
  );
  return hash.replace(/^#\/?/, '').split('?')[0]!.split('/').map(decodeURIComponent);
}

export const link = (...parts: string[]): string => `#/${parts.map(encodeURIComponent).join('/')}`;

export function useMedia(query: string): boolean {
  return useSyncExternalStore(
    (fn) => { const m = matchMedia(query); m.addEventListener('change', fn); return () => m.removeEventListener('change', fn); },
    () => matchMedia(query).matches,
  );
}

export const useNarrow = (): boolean => useMedia('(max-width: 52rem)');

export interface Loaded<T> {
  data: T | undefined;
  problem: Problem | undefined;
  reload: () => void;
}

/** Loads when the keys change; what was there stays until the new is. */
export function useLoad<T>(load: () => Promise<T>, keys: unknown[]): Loaded<T> {
  const [state, set] = useState<{ data: T | undefined; problem: Problem | undefined }>({ data: undefined, problem: undefined });
  const [again, setAgain] = useState(0);
  useEffect(() => {
    let current = true;
    load().then(
      (data) => { if (current) set({ data, problem: undefined }); },
      (err: unknown) => { if (current) set((s) => ({ data: s.data, problem: asProblem(err) })); },
    );
    return () => { current = false; };
    // eslint-like exhaustive rules do not know that keys stand for load
  }, [...keys, again]);
  return { ...state, reload: useCallback(() => setAgain((n) => n + 1), []) };
}

export interface Page<T> {
  rows: T[];
  total: number;
}

const PAGE = 200;

export interface Pages<T> {
  total: number | undefined;
  problem: Problem | undefined;
  at: (i: number) => T | undefined;
  want: (from: number, to: number) => void;
  reload: () => void;
}

/** A long list of which only what is on screen is loaded. It begins anew with other keys, and is loaded again, in place, with another revision. */
export function usePages<T>(load: (offset: number, size: number) => Promise<Page<T>>, keys: unknown[], revision = 0): Pages<T> {
  const [state, set] = useState<{ total: number | undefined; problem: Problem | undefined; pages: Map<number, T[]> }>({ total: undefined, problem: undefined, pages: new Map() });
  const era = useRef(0);
  const under = useRef(new Set<number>());
  const shown = useRef<[number, number]>([0, 0]);
  const loadRef = useRef(load);
  loadRef.current = load;
  const fetchPage = useCallback((p: number) => {
    if (under.current.has(p)) return;
    under.current.add(p);
    const mine = era.current;
    loadRef.current(p * PAGE, PAGE).then(
      ({ rows, total }) => { if (mine === era.current) set((s) => ({ total, problem: undefined, pages: new Map(s.pages).set(p, rows) })); },
      (err: unknown) => { if (mine === era.current) set((s) => ({ ...s, problem: asProblem(err) })); },
    ).finally(() => { if (mine === era.current) under.current.delete(p); });
  }, []);
  const reload = useCallback(() => {
    era.current++;
    under.current.clear();
    const [from, to] = shown.current;
    for (let p = from; p <= to; p++) fetchPage(p);
    set((s) => ({ ...s, pages: new Map([...s.pages].filter(([p]) => p >= from && p <= to)) }));
  }, [fetchPage]);
  useEffect(() => {
    era.current++;
    under.current.clear();
    shown.current = [0, 0];
    set((s) => ({ total: s.total, problem: undefined, pages: s.pages }));
    fetchPage(0);
  }, keys);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    const t = setTimeout(reload, 200); // what changes at once is loaded once
    return () => clearTimeout(t);
  }, [revision, reload]);
  return {
    total: state.total,
    problem: state.problem,
    at: (i) => state.pages.get(Math.floor(i / PAGE))?.[i % PAGE],
    want: (from, to) => {
      shown.current = [Math.floor(from / PAGE), Math.floor(to / PAGE)];
      for (let p = shown.current[0]; p <= shown.current[1]; p++) if (!state.pages.has(p) && state.problem === undefined) fetchPage(p);
    },
    reload,
  };
}

/** A value that has not changed for a moment, as what is being typed. */
export function useSettled<T>(value: T, ms = 250): T {
  const [v, set] = useState(value);
  useEffect(() => {
    const t = setTimeout(() => set(value), ms);
    return () => clearTimeout(t);
  }, [value, ms]);
  return v;
}
