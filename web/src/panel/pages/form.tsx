/** A form made from a JSON schema, for settings: whatever the server describes can be changed here. */
import { useId } from 'react';

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  maxLength?: number;
  maxItems?: number;
  readOnly?: boolean;
}

export type Value = Record<string, unknown>;

/** Follows references; the description beside one stays. */
export function resolve(s: Schema, all: Record<string, Schema>): Schema {
  if (s.$ref === undefined) return s;
  const to = all[s.$ref.split('/').at(-1) ?? ''] ?? {};
  return { ...to, ...(s.description !== undefined ? { description: s.description } : {}) };
}

const kind = (s: Schema): string => (Array.isArray(s.type) ? s.type.find((t) => t !== 'null') : s.type) ?? 'object';
/** webRTCViewerLimit → Web RTC viewer limit */
export const words = (name: string): string => {
  const w = name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').replace(/([A-Z]+)([A-Z][a-z])/g, '$1 $2').replace(/^web RTC/i, 'WEBRTC').split(' ').map((p) => (/^[A-Z0-9]{2,}$/.test(p) ? p : p.toLowerCase())).join(' ');
  return (w[0]!.toUpperCase() + w.slice(1)).replace('WEBRTC', 'WebRTC');
};

export interface Change {
  path: string;
  before: string;
  after: string;
}

const secret = (name: string): boolean => /secret/i.test(name);
const text = (v: unknown): string => (v === undefined || v === null || v === '' || (Array.isArray(v) && v.length === 0) ? 'nothing' : Array.isArray(v) && v.every((x) => typeof x !== 'object') ? v.join(', ') : typeof v === 'object' ? JSON.stringify(v) : String(v));
const plain = (v: unknown): v is Value => typeof v === 'object' && v !== null && !Array.isArray(v);

/** What is different in two values, by path. */
export function diff(a: unknown, b: unknown, path = ''): Change[] {
  if (plain(a) || plain(b)) {
    const x = plain(a) ? a : {};
    const y = plain(b) ? b : {};
    return [...new Set([...Object.keys(x), ...Object.keys(y)])].sort().flatMap((k) => diff(x[k], y[k], path === '' ? k : `${path}.${k}`));
  }
  const before = text(a);
  const after = text(b);
  if (before === after) return [];
  return [secret(path) ? { path, before: before === 'nothing' ? before : 'a secret', after: after === 'nothing' ? after : 'another secret' } : { path, before, after }];
}

interface FieldsProps {
  schema: Schema;
  all: Record<string, Schema>;
  value: Value;
  onChange: (v: Value) => void;
  disabled: boolean;
}

export function Fields({ schema, all, value, onChange, disabled }: FieldsProps) {
  return Object.entries(schema.properties ?? {}).filter(([, s]) => s.readOnly !== true).map(([name, raw]) => {
    const s = resolve(raw, all);
    const set = (v: unknown): void => onChange({ ...value, [name]: v });
    if (kind(s) === 'object') {
      if (Object.keys(s.properties ?? {}).length === 0) return null; // there is nothing in it yet
      return (
        <fieldset key={name} className="fields"><legend>{words(name)}</legend>
          {s.description !== undefined && <p className="hint">{s.description}</p>}
          <Fields schema={s} all={all} value={plain(value[name]) ? value[name] : {}} onChange={set} disabled={disabled} /></fieldset>
      );
    }
    return <One key={name} name={name} schema={s} all={all} value={value[name]} onChange={set} disabled={disabled} />;
  });
}

function One({ name, schema: s, all, value, onChange, disabled }: { name: string; schema: Schema; all: Record<string, Schema>; value: unknown; onChange: (v: unknown) => void; disabled: boolean }) {
  const id = useId();
  const common = { id, disabled, 'aria-describedby': s.description === undefined ? undefined : `${id}-hint` };
  const lines = kind(s) === 'array' && ['string', 'integer', 'number'].includes(kind(resolve(s.items ?? {}, all)));
  const numbers = kind(resolve(s.items ?? {}, all)) !== 'string';
  let input;
  if (s.enum !== undefined) {
    input = <select {...common} value={String(value ?? '')} onChange={(e) => onChange(e.target.value)}>{s.enum.map((v) => <option key={String(v)} value={String(v)}>{String(v) || 'not set'}</option>)}</select>;
  } else if (kind(s) === 'boolean') {
    input = <input {...common} type="checkbox" checked={value === true} onChange={(e) => onChange(e.target.checked)} />;
  } else if (kind(s) === 'integer' || kind(s) === 'number') {
    input = <input {...common} type="number" min={s.minimum} max={s.maximum} step={kind(s) === 'integer' ? 1 : 'any'} value={value === undefined ? '' : String(value)} onChange={(e) => onChange(e.target.value === '' ? undefined : Number(e.target.value))} />;
  } else if (lines) {
    input = <textarea {...common} rows={3} value={Array.isArray(value) ? value.join('\n') : ''} placeholder="One on each line"
      onChange={(e) => onChange(e.target.value === '' ? [] : e.target.value.split('\n').map((l) => (numbers && l.trim() !== '' && Number.isFinite(Number(l)) ? Number(l) : l)))} />;
  } else if (kind(s) === 'string') {
    input = (s.maxLength ?? 0) > 2048
      ? <textarea {...common} rows={4} className="mono" spellCheck={false} maxLength={s.maxLength} value={String(value ?? '')} onChange={(e) => onChange(e.target.value)} />
      : <input {...common} type={secret(name) ? 'password' : 'text'} autoComplete={secret(name) ? 'new-password' : 'off'} maxLength={s.maxLength} value={String(value ?? '')} onChange={(e) => onChange(e.target.value)} />;
  } else {
    input = <Json {...common} value={value} onChange={onChange} />;
  }
  return (
    <div className="field"><label htmlFor={id}>{words(name)}</label>{input}
      {s.description !== undefined && <p id={`${id}-hint`} className="hint">{s.description}</p>}</div>
  );
}

/** What has a shape of its own, as JSON; it counts when it can be read. */
function Json({ value, onChange, ...rest }: { id: string; disabled: boolean; 'aria-describedby': string | undefined; value: unknown; onChange: (v: unknown) => void }) {
  return <textarea {...rest} rows={6} className="mono" spellCheck={false} defaultValue={JSON.stringify(value ?? [], null, 2)}
    onChange={(e) => { try { onChange(JSON.parse(e.target.value)); e.target.setCustomValidity(''); } catch { e.target.setCustomValidity('This is no JSON.'); } }} />;
}
