/** The few helpers that stand in for a framework. */

/** Finds an element by its test id; a page without it is a mistake in the page. */
export function byTestId<T extends HTMLElement = HTMLElement>(id: string, root: ParentNode = document): T {
  const el = root.querySelector<T>(`[data-testid="${id}"]`);
  if (el === null) throw new Error(`the page has no ${id}`);
  return el;
}

/** Sets text only when it changes, so that screen readers are not told twice. */
export function setText(el: Element, text: string): void {
  if (el.textContent !== text) el.textContent = text;
}

export function clock(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number): string => String(n).padStart(2, '0');
  const h = Math.floor(s / 3600);
  return `${h > 0 ? `${h}:` : ''}${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

/** localStorage that may be switched off. */
export const store = {
  get(key: string): string | null {
    try {
      return localStorage.getItem(`sluice.${key}`);
    } catch {
      return null;
    }
  },
  set(key: string, value: string): void {
    try {
      localStorage.setItem(`sluice.${key}`, value);
    } catch {
      // private window: the choice lasts as long as the page
    }
  },
};
