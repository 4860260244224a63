/** Light and dark: follows the system until the reader chooses. */
import { store } from './dom.js';
import { setIcon } from './icons.js';

type Theme = 'light' | 'dark';

const system = (): Theme => (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
const chosen = (): Theme | null => {
  const t = store.get('theme');
  return t === 'light' || t === 'dark' ? t : null;
};

export function applyTheme(): void {
  const t = chosen();
  if (t !== null) document.documentElement.dataset['theme'] = t;
}

export function bindThemeButton(button: HTMLElement): void {
  const show = (): void => {
    const now = chosen() ?? system();
    setIcon(button, now === 'dark' ? 'sun' : 'moon');
    const label = now === 'dark' ? 'Use light colours' : 'Use dark colours';
    button.setAttribute('aria-label', label);
    button.title = label;
  };
  button.addEventListener('click', () => {
    store.set('theme', (chosen() ?? system()) === 'dark' ? 'light' : 'dark');
    document.documentElement.dataset['theme'] = chosen() ?? 'light';
    show();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  show();
}
