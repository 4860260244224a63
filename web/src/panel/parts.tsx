/** What pages are made of. */
import { Dialog } from '@base-ui/react/dialog';
import { Menu } from '@base-ui/react/menu';
import { useWindowVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useId, useLayoutEffect, useRef, useState, type FormEvent, type ReactNode } from 'react';
import { icon, type IconName } from '../ui/icons.js';
import { messageFor } from '../ui/messages.js';
import { asProblem, type Problem } from '../wire/problem.js';
import { useMedia, useNarrow } from './hooks.js';

export function Icon({ name }: { name: IconName }) {
  return <span className="icon-box" aria-hidden="true" dangerouslySetInnerHTML={{ __html: icon(name) }} />;
}

export function PageHead({ title, children, note }: { title: string; children?: ReactNode; note?: ReactNode }) {
  useEffect(() => { document.title = `${title} · Sluice`; }, [title]);
  return (
    <header className="page-head">
      <div><h1 tabIndex={-1}>{title}</h1>{note !== undefined && <p className="muted">{note}</p>}</div>
      {children !== undefined && <div className="page-tools">{children}</div>}
    </header>
  );
}

export function Failed({ problem, retry }: { problem: Problem; retry?: () => void }) {
  const words = messageFor(problem.code, 'play');
  const detail = sentence(problem.detail);
  const more = detail === '' || detail === `${words.title}.` ? words.hint : detail;
  return (
    <div className="notice-box bad" role="alert" data-code={problem.code}>
      <Icon name="alert" />
      <div><strong>{words.title}</strong><p>{more}</p></div>
      {retry !== undefined && <button type="button" className="button" onClick={retry}>Try again</button>}
    </div>
  );
}

export const sentence = (s: string): string => (s === '' ? '' : s[0]!.toUpperCase() + s.slice(1) + (/[.!?…]$/.test(s) ? '' : '.'));

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return <div className="empty-box"><h2>{title}</h2>{children}</div>;
}

export function Loading({ what }: { what: string }) {
  return <div className="loading" role="status"><span className="visually-hidden">Loading {what}</span>{[0, 1, 2, 3].map((i) => <span key={i} className="bone" />)}</div>;
}

export type Tone = 'good' | 'warn' | 'bad' | 'quiet';

export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`badge ${tone}`}><span className="badge-dot" aria-hidden="true" />{children}</span>;
}

/** A share with a bar; mark is where it becomes too much. */
export function Share({ value, mark, label }: { value: number; mark?: number; label: string }) {
  const shown = Math.min(1, Math.max(0, value));
  const over = mark !== undefined && value > mark;
  return (
    <span className={over ? 'share over' : 'share'}>
      <span className="share-text">{(100 * value).toFixed(0)} %</span>
      <svg className="share-bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label={label}>
        <rect className="share-back" width="100" height="6" rx="3" />
        <rect className="share-fill" width={100 * shown} height="6" rx="3" />
        {mark !== undefined && <rect className="share-mark" x={100 * mark - 0.6} width="1.2" height="6" />}
      </svg>
    </span>
  );
}

export interface Column<T> {
  key: string;
  title: string;
  /** A track of CSS grid. */
  width: string;
  cell: (row: T) => ReactNode;
  number?: boolean;
  /** The track on phones. */
  narrow?: string;
  /** Left out on phones; or, as 'very', on all but wide screens. */
  wideOnly?: boolean | 'very';
  /** What the server sorts by. */
  sort?: string;
}

export interface Sorting {
  by: string;
  desc: boolean;
}

interface TableProps<T> {
  label: string;
  columns: Column<T>[];
  count: number;
  row: (i: number) => T | undefined;
  rowKey: (i: number) => string;
  /** A row that is a heading of those that follow. */
  heading?: (i: number) => ReactNode;
  want?: (from: number, to: number) => void;
  sorting?: Sorting;
  onSort?: (s: Sorting) => void;
}

const ROW = 56; // px

/** A table of any length: only what is on screen is drawn, and the page itself scrolls. */
export function Table<T>({ label, columns, count, row, rowKey, heading, want, sorting, onSort }: TableProps<T>) {
  const narrow = useNarrow();
  const medium = useMedia('(max-width: 78rem)');
  const cols = columns.filter((c) => (c.wideOnly === undefined || !narrow) && (c.wideOnly !== 'very' || !medium));
  const body = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  useLayoutEffect(() => {
    const find = (): void => setTop((body.current?.getBoundingClientRect().top ?? 0) + scrollY);
    find();
    const seen = new ResizeObserver(find);
    seen.observe(document.body);
    return () => seen.disconnect();
  }, []);
  const rows = useWindowVirtualizer({ count, estimateSize: () => ROW, overscan: 6, scrollMargin: top, getItemKey: rowKey });
  const items = rows.getVirtualItems();
  const from = items[0]?.index ?? 0;
  const to = items.at(-1)?.index ?? 0;
  useEffect(() => want?.(from, to), [want, from, to]);
  const grid = { gridTemplateColumns: cols.map((c) => (narrow ? c.narrow : undefined) ?? c.width).join(' ') };
  return (
    <div className="table" role="table" aria-label={label} aria-rowcount={count + 1}>
      <div role="rowgroup">
        <div className="row head" role="row" aria-rowindex={1} style={grid}>
          {cols.map((c) => (
            <div key={c.key} role="columnheader" className={c.number === true ? 'cell num' : 'cell'}
              aria-sort={c.sort === undefined || sorting === undefined || sorting.by !== c.sort ? undefined : sorting.desc ? 'descending' : 'ascending'}>
              {c.sort === undefined || onSort === undefined
                ? (c.title === '' ? <span className="visually-hidden">Actions</span> : c.title)
                : (
                  <button type="button" className="sort" onClick={() => onSort({ by: c.sort!, desc: sorting !== undefined && sorting.by === c.sort ? !sorting.desc : c.number === true })}>
                    {c.title}<span aria-hidden="true">{sorting?.by === c.sort ? (sorting.desc ? ' ↓' : ' ↑') : ''}</span>
                  </button>
                )}
            </div>
          ))}
        </div>
      </div>
      <div role="rowgroup" ref={body} className="rows" style={{ height: rows.getTotalSize() }}>
        {items.map((item) => {
          const place = { transform: `translateY(${item.start - rows.options.scrollMargin}px)`, height: item.size };
          const says = heading?.(item.index);
          if (says !== undefined && says !== null) {
            return <div key={item.key} className="row group" role="row" aria-rowindex={item.index + 2} style={place}><div role="cell" aria-colspan={cols.length} className="cell">{says}</div></div>;
          }
          const r = row(item.index);
          return (
            <div key={item.key} className="row" role="row" aria-rowindex={item.index + 2} style={{ ...grid, ...place }} data-row={rowKey(item.index)}>
              {cols.map((c) => (
                <div key={c.key} role="cell" className={c.number === true ? 'cell num' : 'cell'} data-cell={c.key}>{r === undefined ? <span className="bone" /> : c.cell(r)}</div>
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}

/** A form in a dialog. It closes when what was asked for is done. */
export function FormDialog({ title, note, action, danger, open, onClose, onSubmit, children }: {
  title: string; note?: ReactNode; action: string; danger?: boolean; open: boolean; onClose: () => void; onSubmit: (f: FormData) => Promise<unknown>; children?: ReactNode;
}) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  useEffect(() => { if (open) setProblem(undefined); }, [open]);
  const submit = async (e: FormEvent<HTMLFormElement>): Promise<void> => {
    e.preventDefault();
    setBusy(true);
    setProblem(undefined);
    try {
      await onSubmit(new FormData(e.currentTarget));
      onClose();
    } catch (err) {
      setProblem(asProblem(err));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog.Root open={open} onOpenChange={(is) => { if (!is) onClose(); }}>
      <Dialog.Portal>
        <Dialog.Backdrop className="backdrop" />
        <Dialog.Popup className="dialog">
          <Dialog.Title>{title}</Dialog.Title>
          {note !== undefined && <Dialog.Description className="muted">{note}</Dialog.Description>}
          <form className="form" onSubmit={(e) => void submit(e)}>
            {children}
            {problem !== undefined && <Failed problem={problem} />}
            <div className="form-end">
              <Dialog.Close className="button">Cancel</Dialog.Close>
              <button type="submit" className={danger === true ? 'button danger' : 'button primary'} disabled={busy}>{action}</button>
            </div>
          </form>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

export interface Choice {
  label: string;
  run: () => void;
  danger?: boolean;
}

export function Actions({ label, choices }: { label: string; choices: Choice[] }) {
  if (choices.length === 0) return null;
  return (
    <Menu.Root modal={false}>
      <Menu.Trigger className="icon-button" aria-label={label}>
        <svg className="icon" viewBox="0 0 24 24" fill="currentColor" aria-hidden="true"><circle cx="5" cy="12" r="1.75" /><circle cx="12" cy="12" r="1.75" /><circle cx="19" cy="12" r="1.75" /></svg>
      </Menu.Trigger>
      <Menu.Portal>
        <Menu.Positioner align="end" sideOffset={4} className="menu-place">
          <Menu.Popup className="menu">
            {choices.map((c) => <Menu.Item key={c.label} className={c.danger === true ? 'menu-item danger-text' : 'menu-item'} onClick={c.run}>{c.label}</Menu.Item>)}
          </Menu.Popup>
        </Menu.Positioner>
      </Menu.Portal>
    </Menu.Root>
  );
}

export function Field({ label, hint, ...input }: { label: string; hint?: string } & React.InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input id={id} aria-describedby={hint === undefined ? undefined : `${id}-hint`} {...input} />
      {hint !== undefined && <p id={`${id}-hint`} className="hint">{hint}</p>}
    </div>
  );
}

export function Choose({ label, options, ...select }: { label: string; options: [value: string, text: string][] } & React.SelectHTMLAttributes<HTMLSelectElement>) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} {...select}>{options.map(([v, text]) => <option key={v} value={v}>{text}</option>)}</select>
    </div>
  );
}

export function Search({ label, value, onChange }: { label: string; value: string; onChange: (v: string) => void }) {
  return <input type="search" className="search" aria-label={label} placeholder={label} value={value} onChange={(e) => onChange(e.target.value)} />;
}

export function Tile({ label, children }: { label: string; children: ReactNode }) {
  return <div><dt>{label}</dt><dd>{children}</dd></div>;
}

export function CopyText({ label, text }: { label: string; text: string }) {
  const [copied, setCopied] = useState(false);
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <div className="copy-row">
        <input id={id} readOnly value={text} onFocus={(e) => e.target.select()} />
        <button type="button" className="button" onClick={() => void navigator.clipboard.writeText(text).then(() => { setCopied(true); setTimeout(() => setCopied(false), 2000); })}>
          <Icon name={copied ? 'check' : 'copy'} /><span aria-live="polite">{copied ? 'Copied' : 'Copy'}</span><span className="visually-hidden"> {label}</span>
        </button>
      </div>
    </div>
  );
}
