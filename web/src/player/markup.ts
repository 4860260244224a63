/** The player's elements, the same on both pages. */
import { icon } from '../ui/icons.js';

const figures: [name: string, label: string][] = [
  ['resolution', 'Resolution'],
  ['fps', 'Frames'],
  ['bitrate', 'Bitrate'],
  ['rtt', 'Round trip'],
  ['loss', 'Loss'],
  ['buffer', 'Buffer delay'],
  ['codec', 'Codec'],
];

const rows = figures
  .map(([name, label]) => `<div><dt>${label}</dt><dd data-figure="${name}" data-testid="stat-${name}">–</dd></div>`)
  .join('');

export const MARKUP = `
<video data-testid="video" playsinline muted disableremoteplayback></video>
<canvas class="freeze" aria-hidden="true" hidden></canvas>
<div class="notice" data-testid="notice" hidden>
  <span class="notice-mark" data-part="mark"></span>
  <h2 data-testid="notice-title"></h2>
  <p data-testid="notice-hint"></p>
  <button type="button" class="button on-stage" data-testid="retry" hidden>Try again</button>
</div>
<div class="spinner" data-part="spinner" aria-hidden="true"></div>
<button type="button" class="big-play" data-testid="big-play" aria-label="Play" hidden>${icon('play')}</button>
<div class="stage-top">
  <div class="pill" data-testid="state"><span class="dot"></span><span role="status" data-part="state">Connecting</span></div>
  <dl class="figures" data-testid="stats" aria-label="Live figures" hidden>${rows}</dl>
</div>
<button type="button" class="sound-cta" data-testid="unmute" hidden>${icon('sound-off')}<span>Tap for sound</span></button>
<div class="controls" role="group" aria-label="Player controls">
  <button type="button" data-testid="play" aria-label="Pause" title="Pause (space)"></button>
  <button type="button" data-testid="mute" aria-label="Sound on" title="Sound (m)"></button>
  <input type="range" class="volume" data-testid="volume" min="0" max="100" step="5" value="100" aria-label="Volume">
  <span class="grow"></span>
  <div class="quality" data-part="quality" hidden>
    <button type="button" data-testid="quality" aria-haspopup="menu" aria-expanded="false" aria-controls="quality-menu" title="Quality (q)">${icon('gear')}<span data-part="quality-now">Auto</span></button>
    <div class="quality-menu" id="quality-menu" role="menu" aria-label="Quality" data-testid="quality-menu" hidden></div>
  </div>
  <button type="button" data-testid="stats-toggle" aria-label="Live figures" aria-pressed="false" title="Live figures (i)">${icon('chart')}</button>
  <button type="button" data-testid="pip" aria-label="Picture in picture" title="Picture in picture" hidden>${icon('pip')}</button>
  <button type="button" data-testid="fullscreen" aria-label="Full screen" title="Full screen (f)"></button>
</div>`;
