/** player.html: the player with a page around it. */
import '../ui/tokens.css';
import '../ui/base.css';
import './player.css';
import { bindCopyButton } from '../ui/copy.js';
import { byTestId, setText } from '../ui/dom.js';
import { drawIcons } from '../ui/icons.js';
import { applyTheme, bindThemeButton } from '../ui/theme.js';
import { playLink, readAddress } from '../wire/address.js';
import { readOptions, startPlayer } from './player.js';

applyTheme();
const address = readAddress(location);
startPlayer(byTestId('player'), { address, ...readOptions(location) });

document.title = `${address.id} · Sluice`;
setText(byTestId('stream-name'), address.id);
setText(byTestId('app-name'), address.app);
drawIcons(document);
bindThemeButton(byTestId('theme'));
bindCopyButton(byTestId('copy-link'), () => playLink(address, '', location));
