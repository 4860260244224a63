// The page with the charts of `make abr`: one file, nothing loaded from elsewhere.

const width = 920;
const height = 220;
const left = 60;
const most = 6_000_000;
const text = (s) => String(s).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

export function page(results, rungs) {
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Adaptive bitrate</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#1d2330, #e6e9ef); --soft: light-dark(#6b7280, #98a2b3); --line: light-dark(#d8dce3, #39404d); --paper: light-dark(#fff, #171b22);
  --link: light-dark(#98a2b3, #667085); --got: light-dark(#2563eb, #6ea8fe); --rung: light-dark(#0f9960, #4cc38a); --frozen: light-dark(#dc2626, #ff6b6b); --estimate: light-dark(#b45309, #f0b45a); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.15rem; } svg { width: 100%; height: auto; } table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; } .bad { color: var(--frozen); font-weight: 600; }
text { fill: var(--soft); font: 12px system-ui, sans-serif; } .key span { margin-right: 1.25rem; } .key i { display: inline-block; width: 1.5em; height: .3em; vertical-align: middle; margin-right: .4em; }
</style>
<h1>How a picture follows its network</h1>
<p>A Chromium behind a link whose rate changes. Renditions: ${rungs.map((r) => `${r.height}p at ${r.rate / 1e6} Mbit/s`).join(', ')}.</p>
<p class="key">${[['link', 'link'], ['got', 'what came'], ['rung', 'rendition that was shown'], ['estimate', 'estimate when a rendition was chosen'], ['frozen', 'frozen']].map(([c, t]) => `<span><i style="background:var(--${c})"></i>${t}</span>`).join('')}</p>
${results.map((r) => section(r, rungs)).join('\n')}
</html>
`;
}

function section(r, rungs) {
  const x = (t) => left + (width - left - 10) * t / r.seconds;
  const y = (bits) => height - 24 - (height - 40) * Math.min(bits, most) / most;
  const path = (points) => points.map(([a, b], i) => `${i ? 'L' : 'M'}${a.toFixed(1)} ${b.toFixed(1)}`).join('');
  const steps = [...r.link, [r.seconds, r.link.at(-1)[1]]];
  const link = path(steps.flatMap(([t, bits], i) => (i ? [[x(t), y(steps[i - 1][1])], [x(t), y(bits)]] : [[x(t), y(bits)]])));
  const rate = (h) => rungs.find((g) => g.height === h)?.rate ?? 0;
  const rung = path(r.samples.flatMap((s, i) => (i ? [[x(s.t), y(rate(r.samples[i - 1].height))], [x(s.t), y(rate(s.height))]] : [[x(s.t), y(rate(s.height))]])));
  const got = path(r.samples.map((s, i) => [x(s.t), y(r.samples.slice(Math.max(0, i - 4), i + 1).reduce((a, b) => a + b.bits, 0) / Math.min(5, i + 1))]));
  const frozen = r.samples.slice(1).map((s, i) => ({ t: s.t, d: s.frozen - r.samples[i].frozen })).filter((f) => f.d > 0);
  return `<h2>${text(r.title)}</h2>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${text(r.title)}">
${[0, 1, 2, 3, 4, 5].map((m) => `<line x1="${left}" x2="${width - 10}" y1="${y(m * 1e6)}" y2="${y(m * 1e6)}" stroke="var(--line)"/><text x="${left - 8}" y="${y(m * 1e6) + 4}" text-anchor="end">${m} Mbit/s</text>`).join('')}
${[...Array(Math.floor(r.seconds / 10) + 1).keys()].map((i) => `<text x="${x(i * 10)}" y="${height - 6}" text-anchor="middle">${i * 10} s</text>`).join('')}
${frozen.map((f) => `<rect x="${x(f.t - f.d).toFixed(1)}" width="${Math.max(2, x(f.d) - x(0)).toFixed(1)}" y="16" height="${height - 40}" fill="var(--frozen)" opacity=".35"><title>frozen for ${f.d.toFixed(2)} s</title></rect>`).join('')}
<path d="${link}" fill="none" stroke="var(--link)" stroke-width="2" stroke-dasharray="6 4"/>
<path d="${got}" fill="none" stroke="var(--got)" stroke-width="1.5"/>
<path d="${rung}" fill="none" stroke="var(--rung)" stroke-width="2.5"/>
${r.moves.map((m) => `<circle cx="${x(Math.max(0, m.t)).toFixed(1)}" cy="${y(m.estimate).toFixed(1)}" r="4" fill="var(--estimate)"><title>${m.down ? 'down' : 'up'}, estimate ${(m.estimate / 1e6).toFixed(2)} Mbit/s</title></circle>`).join('')}
</svg>
<table>${r.checks.map((c) => `<tr><td>${text(c.what)}</td><td${c.ok ? '' : ' class="bad"'}>${text(c.value)}</td><td>${text(c.limit)}</td></tr>`).join('')}</table>`;
}
