/** The little of SDP that the pages need: trickle-ICE fragments (RFC 8840 §9) and stereo sound. */

export interface Candidate {
  candidate: string; // "candidate:…" without "a="
  mid: string;
}

export interface Fragment {
  ufrag: string;
  pwd: string;
  candidates: Candidate[];
}

const lines = (sdp: string): string[] => sdp.split(/\r?\n/).filter((l) => l !== '');

const value = (all: string[], prefix: string): string =>
  all.find((l) => l.startsWith(prefix))?.slice(prefix.length) ?? '';

/** Writes the body of a PATCH: the ICE credentials of `sdp` with these candidates. */
export function writeFragment(sdp: string, candidates: readonly Candidate[], end: boolean): string {
  const all = lines(sdp);
  const ufrag = value(all, 'a=ice-ufrag:');
  const pwd = value(all, 'a=ice-pwd:');
  const out: string[] = [];
  const group = all.find((l) => l.startsWith('a=group:BUNDLE'));
  if (group !== undefined) out.push(group);
  const wanted = new Set(candidates.map((c) => c.mid));
  let first = true;
  for (const section of sections(all)) {
    const mid = value(section, 'a=mid:');
    if (wanted.size > 0 ? !wanted.has(mid) : !first) continue;
    first = false;
    out.push(section[0] ?? '', `a=mid:${mid}`, `a=ice-ufrag:${ufrag}`, `a=ice-pwd:${pwd}`);
    for (const c of candidates) if (c.mid === mid) out.push(`a=${c.candidate}`);
    if (end) out.push('a=end-of-candidates');
  }
  return out.join('\r\n') + '\r\n';
}

/** Reads what the server answers to an ICE restart. Credentials may stand above or below the m-lines. */
export function readFragment(text: string): Fragment {
  const all = lines(text);
  const f: Fragment = { ufrag: value(all, 'a=ice-ufrag:'), pwd: value(all, 'a=ice-pwd:'), candidates: [] };
  if (f.ufrag === '' || f.pwd === '') throw new Error('the server answered an ICE restart without credentials');
  let mid = '';
  for (const l of all) {
    if (l.startsWith('a=mid:')) mid = l.slice('a=mid:'.length);
    else if (l.startsWith('a=candidate:')) f.candidates.push({ candidate: l.slice(2), mid });
  }
  return f;
}

/**
 * Puts a fragment's credentials and candidates in place of the old ones of an answer (RFC 9725 §4.3.3).
 * A fragment may come without candidates: then the server is where it was.
 */
export function applyFragment(answer: string, f: Fragment): string {
  const all = lines(answer);
  const head = all.slice(0, all.findIndex((l) => l.startsWith('m=')));
  const out = renew(head, f);
  let first = true;
  for (const section of sections(all)) {
    const mid = value(section, 'a=mid:');
    out.push(...renew(section, f));
    // A candidate without a mid belongs to the bundle, which is carried by its first section.
    for (const c of f.candidates) if (c.mid === mid || (first && c.mid === '')) out.push(`a=${c.candidate}`);
    first = false;
  }
  return out.join('\r\n') + '\r\n';
}

function renew(part: string[], f: Fragment): string[] {
  const out: string[] = [];
  for (const l of part) {
    if (l.startsWith('a=ice-ufrag:')) out.push(`a=ice-ufrag:${f.ufrag}`);
    else if (l.startsWith('a=ice-pwd:')) out.push(`a=ice-pwd:${f.pwd}`);
    else if (f.candidates.length === 0 || (!l.startsWith('a=candidate:') && l !== 'a=end-of-candidates')) out.push(l);
  }
  return out;
}

function sections(all: string[]): string[][] {
  const out: string[][] = [];
  for (const l of all) {
    if (l.startsWith('m=')) out.push([l]);
    else out.at(-1)?.push(l);
  }
  return out;
}

/** Asks for stereo Opus: a receiver gets mono unless it says so (RFC 7587 §6.1). */
export function withStereo(sdp: string): string {
  const opus = new Set([...sdp.matchAll(/^a=rtpmap:(\d+) opus\/48000/gim)].map((m) => m[1]));
  return sdp.replace(/^a=fmtp:(\d+) ([^\r\n]*)/gim, (line, pt: string, params: string) =>
    opus.has(pt) && !/(^|;)\s*stereo=/.test(params) ? `a=fmtp:${pt} ${params};stereo=1` : line,
  );
}

/**
 * Tells Chromium at what rate to begin (kbit/s). Without it every stream starts at 300 kbit/s, a stamp-sized
 * picture, and takes 20 s to grow; congestion control lowers the rate at once where the network can't take it.
 */
export function withStartBitrate(answer: string, kbps: number): string {
  const all = lines(answer);
  const start = all.findIndex((l) => l.startsWith('m='));
  const out = all.slice(0, start);
  for (const section of sections(all)) {
    if (!section[0]?.startsWith('m=video')) {
      out.push(...section);
      continue;
    }
    const described = new Set(section.map((l) => /^a=fmtp:(\d+) /.exec(l)?.[1]));
    for (const l of section) {
      const pt = /^a=rtpmap:(\d+) (?!rtx|red|ulpfec|flexfec)/i.exec(l)?.[1];
      if (pt !== undefined && !described.has(pt)) out.push(l, `a=fmtp:${pt} x-google-start-bitrate=${kbps}`);
      else if (/^a=fmtp:\d+ /.test(l) && !/\bapt=/.test(l)) out.push(`${l};x-google-start-bitrate=${kbps}`);
      else out.push(l);
    }
  }
  return out.join('\r\n') + '\r\n';
}
