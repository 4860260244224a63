/** The panel. */
import '../ui/tokens.css';
import '../ui/base.css';
import './panel.css';
import { createRoot } from 'react-dom/client';
import { originOf } from '../wire/address.js';
import { applyTheme } from '../ui/theme.js';
import { App } from './app.js';
import { origins } from './origins.js';

applyTheme();
for (const a of document.querySelectorAll<HTMLAnchorElement>('a[data-side]')) {
  a.href = originOf(a.dataset['side'] === 'publish' ? origins.publish : origins.play, location) + (a.getAttribute('href') ?? '');
}
createRoot(document.getElementById('panel')!).render(<App />);
