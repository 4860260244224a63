/** Where pages for publishers and viewers are, as the server was told. */
const meta = (name: string): string => document.querySelector<HTMLMetaElement>(`meta[name="sluice-${name}-origin"]`)?.content ?? '';

export const origins = { publish: meta('publish'), play: meta('play') };
