// Bundles what browsers load: into dist/browser the library, DiLoCo and the page of `skein coordinator --serve-page`, as modules that
// import nothing but one another, with the kernels and the page's HTML beside them; into dist/dashboard what a coordinator shows of its runs;
// and the page of examples/browser.
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { build } from 'rolldown';

const face = resolve('src/index.ts');
const browserFace = resolve('src/browser/index.ts');

/** What is built on the public face of Node's package is built on that of the browser's here. */
const publicFace = {
  name: 'public face',
  async resolveId(source, importer) {
    if (importer === undefined || !source.endsWith('index.ts')) return null;
    const found = await this.resolve(source, importer, { skipSelf: true });
    return found?.id === face ? browserFace : found;
  },
};

/** Modules that have another in their place here: of a library that is smaller, or of what browsers do themselves. */
const inBrowsers = new Map(
  ['src/wire/packer', 'src/transport/psk'].map((name) => [resolve(`${name}.ts`), resolve(`${name}-browser.ts`)]),
);

const counterparts = {
  name: 'counterparts',
  async resolveId(source, importer) {
    if (importer === undefined || !source.startsWith('.')) return null;
    const found = await this.resolve(source, importer, { skipSelf: true });
    return inBrowsers.get(found?.id) ?? found;
  },
};

async function bundleModules(input, folder, sourcemap) {
  await rm(folder, { recursive: true, force: true });
  await build({
    input,
    platform: 'browser',
    tsconfig: 'tsconfig.browser.json',
    plugins: [publicFace, counterparts],
    output: {
      dir: folder,
      format: 'es',
      minify: true,
      sourcemap,
      entryFileNames: '[name].js',
      chunkFileNames: 'shared-[hash].js',
    },
    // A module of Node's on the path is a mistake, and so is a package that can't be found.
    onLog(level, log, handler) {
      if (level !== 'warn') handler(level, log);
      else throw new Error(`the bundle: ${log.message}`);
    },
  });
}

async function bundle(input, folder, html) {
  await bundleModules(input, folder, true);
  await copyFile('src/kernels/generated/kernels.wasm', `${folder}/kernels.wasm`);
  await copyFile(html, `${folder}/index.html`);
}

/** The dashboard, with the style of the charts before its own. */
async function bundleDashboard(folder) {
  await bundleModules({ dashboard: 'src/dashboard/dashboard.ts' }, folder, false);
  await mkdir(folder, { recursive: true });
  const charts = createRequire(import.meta.url).resolve('uplot/dist/uPlot.min.css');
  const styles = await Promise.all([charts, 'src/dashboard/dashboard.css'].map((path) => readFile(path, 'utf8')));
  await writeFile(`${folder}/dashboard.css`, styles.join('\n'));
  await copyFile('src/dashboard/index.html', `${folder}/index.html`);
}

const worker = 'src/browser/worker.ts';
const library = {
  skein: browserFace,
  worker,
  'page-engine': 'src/browser/page-engine.ts',
  diloco: 'src/diloco/index.ts',
  notes: 'src/notes/index.ts',
  program: 'src/collectives/user-program.ts',
  page: 'src/browser/page.ts',
};
await bundle(library, 'dist/browser', 'src/browser/page.html');
await bundle({ tab: 'examples/browser/tab.ts', worker }, 'dist/examples/browser/page', 'examples/browser/page.html');
await bundleDashboard('dist/dashboard');
