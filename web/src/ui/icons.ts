/** The icons, drawn for Sluice on a 24 × 24 grid with 1.75 strokes. */

const paths = {
  camera: '<rect x="2.5" y="6.5" width="12.5" height="11" rx="2.5"/><path d="m15 10.6 5.1-2.9a.9.9 0 0 1 1.4.8v7a.9.9 0 0 1-1.4.8L15 13.4"/>',
  'camera-off': '<path d="M8 6.5h4.5A2.5 2.5 0 0 1 15 9v1.6l5.1-2.9a.9.9 0 0 1 1.4.8v7a.9.9 0 0 1-1.4.8M15 15a2.5 2.5 0 0 1-2.5 2.5H5A2.5 2.5 0 0 1 2.5 15V9A2.5 2.5 0 0 1 4 6.7"/><path d="m3 3 18 18"/>',
  mic: '<rect x="9" y="2.75" width="6" height="11.5" rx="3"/><path d="M5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3.25"/>',
  'mic-off': '<path d="M9 9v2.25a3 3 0 0 0 4.8 2.4M15 10.5V5.75a3 3 0 0 0-5.7-1.3M5.5 11.5a6.5 6.5 0 0 0 10.6 5M18.2 13.3c.2-.6.3-1.2.3-1.8M12 18v3.25"/><path d="m3 3 18 18"/>',
  screen: '<rect x="2.75" y="4" width="18.5" height="12.5" rx="2.25"/><path d="M8.5 20.25h7M12 13.25v-6M9.4 9.6 12 7l2.6 2.6"/>',
  play: '<path d="M7.5 5.2v13.6a.8.8 0 0 0 1.2.7l11-6.8a.8.8 0 0 0 0-1.4l-11-6.8a.8.8 0 0 0-1.2.7Z" fill="currentColor"/>',
  pause: '<path d="M8.25 5.25v13.5M15.75 5.25v13.5" stroke-width="3"/>',
  stop: '<rect x="6" y="6" width="12" height="12" rx="2.25" fill="currentColor"/>',
  sound: '<path d="M3.5 9.75v4.5a.9.9 0 0 0 .9.9h2.9l4.2 3.6a.7.7 0 0 0 1.2-.5V5.75a.7.7 0 0 0-1.2-.5l-4.2 3.6H4.4a.9.9 0 0 0-.9.9Z"/><path d="M16 9a4.2 4.2 0 0 1 0 6M18.6 6.4a7.9 7.9 0 0 1 0 11.2"/>',
  'sound-off': '<path d="M3.5 9.75v4.5a.9.9 0 0 0 .9.9h2.9l4.2 3.6a.7.7 0 0 0 1.2-.5V5.75a.7.7 0 0 0-1.2-.5l-4.2 3.6H4.4a.9.9 0 0 0-.9.9Z"/><path d="m16.5 9.5 5 5M21.5 9.5l-5 5"/>',
  full: '<path d="M9 3.75H5.5A1.75 1.75 0 0 0 3.75 5.5V9M15 3.75h3.5a1.75 1.75 0 0 1 1.75 1.75V9M9 20.25H5.5a1.75 1.75 0 0 1-1.75-1.75V15M15 20.25h3.5a1.75 1.75 0 0 0 1.75-1.75V15"/>',
  'full-exit': '<path d="M3.75 9h3.5A1.75 1.75 0 0 0 9 7.25v-3.5M20.25 9h-3.5A1.75 1.75 0 0 1 15 7.25v-3.5M3.75 15h3.5A1.75 1.75 0 0 1 9 16.75v3.5M20.25 15h-3.5A1.75 1.75 0 0 0 15 16.75v3.5"/>',
  pip: '<rect x="2.75" y="4.5" width="18.5" height="15" rx="2.25"/><rect x="12" y="11.5" width="6.25" height="5" rx="1" fill="currentColor"/>',
  gear: '<path d="M4 7h9M17.5 7H20M4 17h2.5M11 17h9"/><circle cx="15.25" cy="7" r="2.25"/><circle cx="8.75" cy="17" r="2.25"/>',
  chart: '<path d="M4 20V13M9.333 20V8M14.667 20v-5M20 20V4"/>',
  copy: '<rect x="8.75" y="8.75" width="11.5" height="11.5" rx="2.25"/><path d="M15.25 8.75V6A2.25 2.25 0 0 0 13 3.75H6A2.25 2.25 0 0 0 3.75 6v7A2.25 2.25 0 0 0 6 15.25h2.75"/>',
  check: '<path d="m5 12.5 4.5 4.5L19 7.5"/>',
  open: '<path d="M13.5 4.25h6.25v6.25M19.5 4.5l-8.5 8.5M10 5.75H6A1.75 1.75 0 0 0 4.25 7.5V18A1.75 1.75 0 0 0 6 19.75h10.5A1.75 1.75 0 0 0 18.25 18v-4"/>',
  alert: '<path d="M12 8.5v4.75M12 16.6v.1M10.3 4.4 3 17a2 2 0 0 0 1.7 3h14.6a2 2 0 0 0 1.7-3L13.7 4.4a2 2 0 0 0-3.4 0Z"/>',
  sun: '<circle cx="12" cy="12" r="4.25"/><path d="M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4"/>',
  moon: '<path d="M20 14.3A8.3 8.3 0 0 1 9.7 4a8.3 8.3 0 1 0 10.3 10.3Z"/>',
  nodes: '<rect x="3" y="3.5" width="18" height="6.5" rx="2"/><rect x="3" y="14" width="18" height="6.5" rx="2"/><path d="M7 6.75h.1M7 17.25h.1M11 6.75h6M11 17.25h6"/>',
  person: '<circle cx="12" cy="8" r="4"/><path d="M4.5 20.5a7.5 7.5 0 0 1 15 0"/>',
  people: '<circle cx="9" cy="8" r="3.5"/><path d="M2.5 20a6.5 6.5 0 0 1 13 0M15.5 4.9a3.5 3.5 0 0 1 0 6.2M18 14.2a6.5 6.5 0 0 1 3.5 5.8"/>',
  lines: '<path d="M8.5 6h12M8.5 12h12M8.5 18h12M4 6h.1M4 12h.1M4 18h.1"/>',
  wave: '<path d="M2.75 9.5c3-2.7 6.2-2.7 9.25 0s6.2 2.7 9.25 0M2.75 15.5c3-2.7 6.2-2.7 9.25 0s6.2 2.7 9.25 0"/>',
  broadcast: '<circle cx="12" cy="12" r="2.25" fill="currentColor"/><path d="M7.8 16.2a6 6 0 0 1 0-8.4M16.2 7.8a6 6 0 0 1 0 8.4M4.9 19.1a10 10 0 0 1 0-14.2M19.1 4.9a10 10 0 0 1 0 14.2"/>',
} as const;

export type IconName = keyof typeof paths;

export function icon(name: IconName): string {
  return `<svg class="icon" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${paths[name]}</svg>`;
}

/** Fills every element that asks for an icon with data-icon, and draws again when it asks for another. */
export function setIcon(el: Element, name: IconName): void {
  if (el.getAttribute('data-drawn') === name) return;
  el.setAttribute('data-drawn', name);
  el.innerHTML = icon(name);
}

export function drawIcons(root: ParentNode): void {
  for (const el of root.querySelectorAll('[data-icon]')) setIcon(el, el.getAttribute('data-icon') as IconName);
}
