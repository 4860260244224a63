/** Start page and error page: colours, icons, and links that lead to the right port. */
import '../ui/tokens.css';
import '../ui/base.css';
import './home.css';
import { byTestId } from '../ui/dom.js';
import { drawIcons } from '../ui/icons.js';
import { applyTheme, bindThemeButton } from '../ui/theme.js';
import { originOf } from '../wire/address.js';

applyTheme();
drawIcons(document);
bindThemeButton(byTestId('theme'));

for (const side of ['publish', 'play']) {
  const meta = document.querySelector<HTMLMetaElement>(`meta[name="sluice-${side}-origin"]`)?.content ?? '';
  for (const a of document.querySelectorAll<HTMLAnchorElement>(`a[data-side="${side}"]`)) {
    a.href = originOf(meta, location) + (a.getAttribute('href') ?? '');
  }
}
