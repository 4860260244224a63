/** Error page: colours and icons. */
import '../ui/tokens.css';
import '../ui/base.css';
import './home.css';
import { byTestId } from '../ui/dom.js';
import { drawIcons } from '../ui/icons.js';
import { applyTheme, bindThemeButton } from '../ui/theme.js';

applyTheme();
drawIcons(document);
bindThemeButton(byTestId('theme'));
