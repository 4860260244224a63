import { resolve } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

/** The first paint waits for the scripts: they choose the theme and draw the icons, and are small. */
const blockingScripts: Plugin = {
  name: 'blocking-scripts',
  transformIndexHtml: {
    order: 'post',
    handler: (html) => html.replaceAll('<script type="module"', '<script type="module" blocking="render"'),
  },
};

export default defineConfig({
  base: '/',
  appType: 'mpa',
  plugins: [blockingScripts],
  build: {
    target: ['chrome100', 'firefox100', 'safari15.4'],
    assetsInlineLimit: 0, // data: addresses would need a weaker content security policy
    modulePreload: { polyfill: false },
    emptyOutDir: true, // what git keeps in dist comes back from public/
    rolldownOptions: {
      input: ['index', 'publish', 'player', 'play', 'error'].map((page) => resolve(import.meta.dirname, `${page}.html`)),
      // Directives for servers that render React: nothing here does.
      onLog: (level, log, pass) => { if (log.code !== 'MODULE_LEVEL_DIRECTIVE') pass(level, log); },
      // One shared file and one for both players: fewer round trips than a file for each module set.
      output: {
        codeSplitting: {
          includeDependenciesRecursively: false,
          groups: [
            { name: 'shared', test: /src\/(ui|wire)\// },
            { name: 'watch', test: /src\/player\/(?!main|embed)/ },
          ],
        },
      },
    },
  },
});
