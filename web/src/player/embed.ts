/** play.html: the bare player, made to be framed by other sites. */
import '../ui/tokens.css';
import '../ui/base.css';
import './player.css';
import { byTestId } from '../ui/dom.js';
import { readAddress } from '../wire/address.js';
import { startPlayer } from './player.js';

const address = readAddress(location);
const query = new URLSearchParams(location.search);
startPlayer(byTestId('player'), {
  address,
  // playOrder is read by players that know several ways; WebRTC is the one this page has.
  autoplay: query.get('autoplay') !== 'false',
  muted: query.get('mute') !== 'false',
});
document.title = `${address.id} · Sluice`;
