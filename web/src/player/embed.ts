/** play.html: the bare player, made to be framed by other sites. */
import '../ui/tokens.css';
import '../ui/base.css';
import './player.css';
import { byTestId } from '../ui/dom.js';
import { readAddress } from '../wire/address.js';
import { readOptions, startPlayer } from './player.js';

const address = readAddress(location);
// playOrder is read by players that know several ways; WebRTC is the one this page has.
startPlayer(byTestId('player'), { address, ...readOptions(location) });
document.title = `${address.id} · Sluice`;
