// The page with the charts of `make abr`: one file, nothing loaded from elsewhere. Each chart is an SVG of its own, too.

const width = 920;
const height = 250;
const left = 62;
const right = 12;
const top = 14;
const bottom = 30;
const most = 5_500_000; // bit/s
const text = (s) => String(s).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

const light = '--ink:#1d2330;--soft:#667085;--line:#e4e7ec;--paper:#fff;--link:#98a2b3;--fill:#f2f4f7;--got:#2563eb;--rung:#0f9960;--frozen:#dc2626;--estimate:#d97706';
const dark = '--ink:#e6e9ef;--soft:#98a2b3;--line:#2b313c;--paper:#14181f;--link:#667085;--fill:#1d232d;--got:#6ea8fe;--rung:#4cc38a;--frozen:#ff6b6b;--estimate:#f0b45a';

const keys = [['link', 'what the link takes'], ['estimate', 'estimate'], ['got', 'what came'], ['rung', 'rendition that is shown, at its rate'], ['frozen', 'frozen']];

export function page(results, rungs) {
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Adaptive bitrate</title>
<style>
:root { color-scheme: light dark; ${light} } @media (prefers-color-scheme: dark) { :root { ${dark} } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { margin: 2.25rem 0 .5rem; font-size: 1.1rem; } svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; margin-top: .5rem; font-size: .9rem; } th, td { padding: .15rem 1.5rem .15rem 0; text-align: left; font-weight: 400; } th { color: var(--soft); }
td.n { text-align: right; font-variant-numeric: tabular-nums; } .ok { color: var(--rung); } .bad { color: var(--frozen); font-weight: 600; } p { color: var(--soft); margin: 0; } .small { font-size: .85rem; }
</style>
<h1>How a picture follows its network</h1>
<p>A Chromium behind a link that changes. Renditions: ${rungs.map((r) => `${r.height}p at ${r.rate / 1e6} Mbit/s`).join(', ')}. Of the runs of a scene the chart shows the middle one.</p>
${results.map((r) => section(r, rungs)).join('\n')}
</html>
`;
}

function section(r, rungs) {
  return `<h2>${text(r.title)}</h2>
${chart(r, rungs)}
<table><tr><th></th><th>median</th><th>worst of ${r.runs.length}</th><th>must be</th><th></th></tr>
${r.checks.map((c) => `<tr><td>${text(c.what)}</td><td class="n">${text(c.median)}</td><td class="n">${text(c.worst)}</td><td>${text(c.limit)}</td><td class="${c.ok ? 'ok' : 'bad'}">${c.ok ? 'kept' : 'missed'}</td></tr>`).join('\n')}
</table>
<p class="small">A viewer without the link, meanwhile: ${r.besides.map((b) => (b.error ? 'not measured' : `${b.freezes} freezes, at most ${b.longest} s between two pictures`)).join(' · ')}.</p>`;
}

/** The chart of a run, as a file of its own. */
export function chart(r, rungs) {
  const x = (t) => left + (width - left - right) * Math.min(t, r.seconds) / r.seconds;
  const y = (bits) => height - bottom - (height - bottom - top) * Math.min(Math.max(bits, 0), most) / most;
  const line = (points) => points.map(([a, b], i) => `${i ? 'L' : 'M'}${a.toFixed(1)} ${b.toFixed(1)}`).join('');
  const steps = (points) => points.flatMap(([t, bits], i) => (i ? [[x(t), y(points[i - 1][1])], [x(t), y(bits)]] : [[x(t), y(bits)]]));
  const until = (points) => [...points, [r.seconds, points.at(-1)[1]]];
  const link = line(steps(until(r.link)));
  const rate = (h) => rungs.find((g) => g.height === h)?.rate ?? 0;
  const shown = r.samples.filter((s, i) => i === 0 || s.height !== r.samples[i - 1].height);
  const rung = line(steps(until([[0, rate(r.samples[0].height)], ...shown.map((s) => [s.t, rate(s.height)])])));
  const got = line(r.samples.map((s, i) => { // over the last second
    const before = r.samples[Math.max(0, i - 5)];
    return [x(s.t), y(s.t > before.t ? (s.bytes - before.bytes) * 8 / (s.t - before.t) : 0)];
  }).slice(1));
  const estimate = line(r.estimates.map(([t, bits]) => [x(t), y(bits)]));
  const frozen = r.samples.slice(1).map((s, i) => ({ t: s.t, d: s.frozen - r.samples[i].frozen })).filter((f) => f.d > 0);
  const lost = r.loss.filter(([, l]) => l > 0).map(([t, l]) => ({ from: t, to: r.loss.find(([u]) => u > t)?.[0] ?? r.seconds, l }));
  const every = r.seconds > 30 ? 10 : 5;
  let at = left;
  const legend = [...keys, ...(lost.length > 0 ? [['lost', 'packets are lost']] : [])].map(([c, t]) => {
    const k = `<rect class="k ${c}" x="${at}" y="${height - 1}" width="14" height="4" rx="2"/><text x="${at + 19}" y="${height + 5}">${t}</text>`;
    at += 34 + t.length * 6.1;
    return k;
  }).join('');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height + 14}" role="img" aria-label="${text(r.title)}">
<style>svg{${light}}@media(prefers-color-scheme:dark){svg{${dark}}}
.paper{fill:var(--paper)}.grid{stroke:var(--line)}text{fill:var(--soft);font:12px system-ui,sans-serif}.area{fill:var(--fill)}path{fill:none;stroke-linejoin:round}
.l-link{stroke:var(--link);stroke-width:1.5;stroke-dasharray:5 4}.l-got{stroke:var(--got);stroke-width:1.2;opacity:.85}.l-rung{stroke:var(--rung);stroke-width:2.6}.l-estimate{stroke:var(--estimate);stroke-width:1.6}
.z{fill:var(--frozen);opacity:.3}.d{fill:var(--got);opacity:.1}.k.link{fill:var(--link)}.k.got{fill:var(--got)}.k.rung{fill:var(--rung)}.k.estimate{fill:var(--estimate)}.k.frozen{fill:var(--frozen);opacity:.5}.k.lost{fill:var(--got);opacity:.25}</style>
<rect class="paper" width="${width}" height="${height + 14}"/>
<path class="area" style="fill:var(--fill)" d="${link}L${x(r.seconds)} ${y(0)}L${x(0)} ${y(0)}Z"/>
${[0, 1, 2, 3, 4, 5].map((m) => `<line class="grid" x1="${left}" x2="${width - right}" y1="${y(m * 1e6)}" y2="${y(m * 1e6)}"/><text x="${left - 8}" y="${y(m * 1e6) + 4}" text-anchor="end">${m}${m === 5 ? ' Mbit/s' : ''}</text>`).join('')}
${[...Array(Math.floor(r.seconds / every) + 1).keys()].map((i) => `<text x="${x(i * every)}" y="${height - bottom + 16}" text-anchor="${i === 0 ? 'start' : 'middle'}">${i * every} s</text>`).join('')}
${lost.map((l) => `<rect class="d" x="${x(l.from).toFixed(1)}" width="${Math.max(2, x(l.to) - x(l.from)).toFixed(1)}" y="${top}" height="${y(0) - top}"><title>${l.l * 100} % are lost</title></rect>`).join('')}
${frozen.map((f) => `<rect class="z" x="${x(f.t - f.d).toFixed(1)}" width="${Math.max(2, x(f.d) - x(0)).toFixed(1)}" y="${top}" height="${y(0) - top}"><title>frozen for ${f.d.toFixed(2)} s</title></rect>`).join('')}
<path class="l-link" d="${link}"/><path class="l-got" d="${got}"/><path class="l-estimate" d="${estimate}"/><path class="l-rung" d="${rung}"/>
${legend}
</svg>
`;
}
