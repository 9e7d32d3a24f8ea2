/** The house rules that neither the compiler nor the linter checks. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/**
 * ARCHITECTURE.md's map: what each room may import besides itself. The files of the public face are rooms of their own. The
 * list is ordered from the ground up, and a room may only name rooms above it in the list, so that no circle can arise.
 */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  lifecycle: [],
  recent: [],
  costs: [],
  ring: [],
  tensor: ['errors'],
  kernels: ['tensor'],
  wire: ['errors', 'tensor'],
  membership: ['costs', 'errors', 'lifecycle', 'recent', 'ring', 'tensor', 'wire'],
  collectives: ['costs', 'errors', 'lifecycle', 'recent', 'ring', 'tensor', 'kernels', 'wire'],
  eyes: ['recent', 'wire', 'membership', 'collectives'],
  transport: ['errors', 'lifecycle', 'wire'],
  state: ['errors', 'tensor', 'kernels', 'wire'],
  store: ['errors', 'transport'],
  snapshot: ['errors', 'tensor', 'state', 'store'],
  'notes-document': ['wire'],
  engine: [
    'costs',
    'errors',
    'lifecycle',
    'tensor',
    'kernels',
    'wire',
    'membership',
    'collectives',
    'eyes',
    'transport',
    'state',
    'store',
    'notes-document',
  ],
  dashboard: ['collectives', 'eyes'],
  staging: ['tensor', 'kernels', 'engine'],
  options: ['errors', 'tensor', 'wire', 'collectives', 'transport', 'state', 'engine'],
  observe: ['tensor', 'collectives'],
  stream: ['errors', 'wire', 'collectives'],
  trace: ['collectives'],
  group: [
    'errors',
    'tensor',
    'wire',
    'collectives',
    'state',
    'snapshot',
    'engine',
    'staging',
    'options',
    'observe',
    'stream',
    'trace',
  ],
  join: ['snapshot', 'engine', 'options', 'observe', 'trace', 'group'],
  browser: [
    'errors',
    'tensor',
    'kernels',
    'wire',
    'collectives',
    'transport',
    'state',
    'snapshot',
    'engine',
    'options',
    'stream',
    'group',
  ],
  coordinator: ['engine'],
  diagnose: ['errors', 'wire', 'engine', 'options'],
  index: [
    'errors',
    'tensor',
    'wire',
    'collectives',
    'state',
    'store',
    'snapshot',
    'engine',
    'options',
    'stream',
    'group',
    'join',
    'coordinator',
    'diagnose',
  ],
  diloco: ['index'],
  notes: ['wire', 'notes-document', 'index'],
  launch: ['index'],
  chaos: ['errors', 'observe', 'launch'],
  benchmark: ['costs', 'errors', 'tensor', 'collectives', 'index'],
  doctor: ['errors', 'wire'],
  cli: ['errors', 'tensor', 'eyes', 'launch', 'chaos', 'benchmark', 'doctor', 'index'],
};

/** Rooms without time, randomness, sockets, or anything else of the world outside. */
const PURE_ROOMS = [
  'membership',
  'collectives',
  'ring',
  'state',
  'wire',
  'tensor',
  'errors',
  'lifecycle',
  'recent',
  'costs',
];

/** All that pure rooms import from packages: libraries that are as pure as they are. */
const PURE_PACKAGES = ['@msgpack/msgpack', 'hash-wasm', 'msgpackr', 'valibot'];

const WORLD_OUTSIDE = /\bMath\.random\b|\bDate\b|\bset(?:Timeout|Interval|Immediate)\b|\bcrypto\b|\bglobalThis\b/;

/** The text without comments; strings, in which there may be what looks like one, stay. */
function codeOf(text: string): string {
  return text.replace(
    /('(?:\\.|[^'\\\n])*')|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, string: string | undefined) => string ?? '',
  );
}

/** What a module names in imports, re-exports, dynamic imports and `new URL('…', import.meta.url)`, types included. */
function importsOf(text: string): string[] {
  const pattern =
    /\b(?:import|export)\b[^'"`;=]*?\bfrom\s*'([^']+)'|\bimport\s*\(?\s*'([^']+)'|\bnew URL\(\s*'([^']+\.[jt]s)',\s*import\.meta\.url/g;
  return [...codeOf(text).matchAll(pattern)].map((match) => (match[1] ?? match[2] ?? match[3])!);
}

interface Module {
  /** Below src/. */
  readonly path: string;
  readonly room: string;
  readonly text: string;
  /** Modules below src/. */
  readonly imports: readonly string[];
  readonly packages: readonly string[];
}

function roomOf(path: string): string {
  return path.split('/')[0]!.replace(/\.ts$/, '');
}

const modules: readonly Module[] = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts') && !path.startsWith('kernels/assembly/'))
  .map((path) => {
    const text = read(`src/${path}`);
    const named = importsOf(text);
    return {
      path,
      room: roomOf(path),
      text,
      imports: named
        .filter((name) => name.startsWith('.'))
        .map((name) => posix.join(dirname(path), name).replace(/\.js$/, '.ts')),
      packages: named.filter((name) => !name.startsWith('.')),
    };
  });

describe('the reader of imports', () => {
  it.each([
    ["import { a } from './a.ts';", './a.ts'],
    ["import type { A } from './a.ts';", './a.ts'],
    ["import {\n  a,\n  type B,\n} from './a.ts';", './a.ts'],
    ["import * as v from 'valibot';", 'valibot'],
    ["import './a.ts';", './a.ts'],
    ["export { a } from './a.ts';", './a.ts'],
    ["export type * from './a.ts';", './a.ts'],
    ["const a = await import('./a.ts');", './a.ts'],
    ["new Worker(new URL('./a.js', import.meta.url))", './a.js'],
  ])('sees %j', (text, name) => {
    expect(importsOf(text)).toEqual([name]);
  });

  it.each([
    "// import { a } from './a.ts';",
    "/** @example import { a } from './a.ts'; */",
    "export const from = 'a';",
  ])('is not taken in by %j', (text) => {
    expect(importsOf(text)).toEqual([]);
  });
});

describe('rooms', () => {
  it('are those of the map', () => {
    expect([...new Set(modules.map((module) => module.room))].sort()).toEqual(Object.keys(ARROWS).sort());
    const map = read('ARCHITECTURE.md').split('```')[1]!;
    const drawn = [...map.matchAll(/\b(\w+)\/(?= )/g)].map((match) => match[1]!);
    expect(drawn.length).toBeGreaterThan(0);
    for (const room of drawn) expect(Object.keys(ARROWS)).toContain(room);
  });

  it('have arrows that point down only', () => {
    const order = Object.keys(ARROWS);
    for (const [room, below] of Object.entries(ARROWS))
      for (const other of below) expect(order.indexOf(other), `${room} → ${other}`).toBeLessThan(order.indexOf(room));
  });

  it('import nothing but what the map lets them', () => {
    const wrong = modules.flatMap(({ path, room, imports }) =>
      imports
        .filter((target) => roomOf(target) !== room && !ARROWS[room]?.includes(roomOf(target)))
        .map((target) => `src/${path} imports src/${target}`),
    );
    expect(wrong).toEqual([]);
  });

  it('import modules that exist', () => {
    const known = new Set(modules.map((module) => module.path));
    const wrong = modules.flatMap(({ path, imports }) =>
      imports.filter((target) => !known.has(target)).map((target) => `src/${path} imports src/${target}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe('pure rooms', () => {
  const pure = modules.filter((module) => PURE_ROOMS.includes(module.room));

  it('are the same for this test, the linter and the compiler', () => {
    const paths = PURE_ROOMS.map((room) =>
      existsSync(join(ROOT, 'src', room)) ? `src/${room}` : `src/${room}.ts`,
    ).sort();
    const compiler = JSON.parse(read('tsconfig.core.json')) as { include: string[] };
    const linter = JSON.parse(read('biome.json')) as { overrides: { includes: string[] }[] };
    expect([...compiler.include].sort()).toEqual(paths);
    expect(linter.overrides[0]!.includes.map((glob) => glob.replace(/\/\*\*$/, '')).sort()).toEqual(paths);
  });

  it('import no module of Node, and only packages that are pure themselves', () => {
    const wrong = pure.flatMap(({ path, packages }) =>
      packages.filter((name) => !PURE_PACKAGES.includes(name)).map((name) => `src/${path} imports ${name}`),
    );
    expect(wrong).toEqual([]);
  });

  it('take time and randomness from outside', () => {
    const wrong = pure.flatMap(({ path, text }) => {
      const found = WORLD_OUTSIDE.exec(codeOf(text).replace(/'(?:\\.|[^'\\\n])*'/g, "''"));
      return found === null ? [] : [`src/${path}: ${found[0]}`];
    });
    expect(wrong).toEqual([]);
  });
});

it('nothing is exported, kept or depended on in vain, and no modules import one another in a circle', () => {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/knip/bin/knip.js'), '--no-progress'],
    { cwd: ROOT, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' }, timeout: 50_000 },
  );
  expect({ stdout: stdout.trim(), status }, stderr).toEqual({ stdout: '', status: 0 });
});

const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };

describe.each(['README.md', 'ARCHITECTURE.md', 'CHANGELOG.md', 'SECURITY.md'])('%s', (document) => {
  const text = read(document);

  it('names only files that exist', () => {
    const missing: string[] = [];
    for (const line of text.split('\n')) {
      // A file may be named from the root, from src/, or beside one that the same line named before.
      const folders = ['', 'src'];
      for (const [, path] of line.matchAll(/`((?:[\w.-]+\/)*[\w.-]+\.(?:ts|mjs|js|json|md|sh)|(?:[\w.-]+\/)+)`/g)) {
        const folder = folders.find((one) => existsSync(join(ROOT, one, path!)));
        if (folder === undefined) missing.push(path!);
        else folders.push(dirname(join(folder, path!)));
      }
    }
    expect(missing).toEqual([]);
  });

  it('links only to files that exist', () => {
    const links = [...text.matchAll(/\]\((?!\w+:)([^)#]+)/g)].map((match) => match[1]!);
    expect(links.filter((link) => !existsSync(join(ROOT, link)))).toEqual([]);
  });

  it('names only scripts that package.json has', () => {
    const named = [...text.matchAll(/\bnpm (?:run ([\w:-]+)|(test)\b)/g)].map((match) => (match[1] ?? match[2])!);
    expect(named.filter((script) => scripts[script] === undefined)).toEqual([]);
  });
});

it('scripts of package.json run files that exist', () => {
  // What is run from dist/ is compiled from the same path outside it.
  const run = Object.values(scripts).flatMap((line) => [...line.matchAll(/\bnode (\S+)/g)].map((match) => match[1]!));
  const sources = run.map((path) => path.replace(/^dist\/(.*)\.js$/, '$1.ts'));
  expect(sources.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});
