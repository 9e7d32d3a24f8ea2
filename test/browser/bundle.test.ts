/** What browsers load. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (name: string): string => readFileSync(new URL(`../../dist/browser/${name}`, import.meta.url), 'utf8');

/** Names in static imports of minified code, or in dynamic ones, or both. */
function importsOf(text: string, kind: 'static' | 'dynamic' | 'all' = 'all'): string[] {
  const pattern = /\b(?:import|from)\s*(\(?)\s*(["'`])([^"'`]+)\2/g;
  const isAsked = (opening: string) => kind === 'all' || (opening === '(') === (kind === 'dynamic');
  return [...text.matchAll(pattern)].filter((match) => isAsked(match[1]!)).map((match) => match[3]!);
}

/** A file and all that it imports, in turn: at once, or (`all`) later, too. */
function closureOf(entry: string, kind: 'static' | 'all'): Map<string, string> {
  const files = new Map<string, string>();
  const visit = (name: string) => {
    if (files.has(name)) return;
    const text = read(name);
    files.set(name, text);
    for (const other of importsOf(text)) expect(other, `${name} imports it`).toMatch(/^\.\/[\w-]+\.js$/);
    for (const other of importsOf(text, kind)) visit(other.slice(2));
  };
  visit(entry);
  return files;
}

test('the reader of imports sees them', () => {
  expect(importsOf('import{a}from"./a.js";import"node:fs";const b=import(`./b.js`);export*from\'./c.js\'')).toEqual([
    './a.js',
    'node:fs',
    './b.js',
    './c.js',
  ]);
  const code = 'import"./a.js";const b=import(`./b.js`)';
  expect([importsOf(code, 'static'), importsOf(code, 'dynamic')]).toEqual([['./a.js'], ['./b.js']]);
});

function gzippedBytes(files: ReadonlyMap<string, string>): number {
  return [...files.values()].reduce((sum, text) => sum + gzipSync(text).length, 0);
}

test.each([
  ['skein.js', 25],
  ['worker.js', 72],
  ['page-engine.js', 73],
  ['diloco.js', 35],
  ['notes.js', 55],
  ['program.js', 20],
  ['page.js', 30],
])('%s, with what it imports, is at most %i KiB when gzipped, and imports nothing else', (entry, limit) => {
  const bytes = gzippedBytes(closureOf(entry, 'static'));
  console.info(`${entry}: ${(bytes / 1024).toFixed(1)} KiB`);
  expect(bytes).toBeLessThan(limit * 1024);
  expect(bytes).toBeGreaterThan(5 * 1024);
});

test('a page whose engine is in its own thread loads 82 KiB at most, and 24 KiB more when state is first shared', () => {
  const page = closureOf('skein.js', 'static');
  const withEngine = new Map([...page, ...closureOf('page-engine.js', 'static')]);
  const all = closureOf('skein.js', 'all');
  for (const name of withEngine.keys()) expect(all.has(name), `${name} is loaded`).toBe(true);
  const [own, later] = [gzippedBytes(withEngine), gzippedBytes(all) - gzippedBytes(withEngine)];
  console.info(`with its engine: ${(own / 1024).toFixed(1)} KiB, later ${(later / 1024).toFixed(1)} KiB`);
  expect(gzippedBytes(page)).toBeLessThan(own / 3);
  expect(own).toBeLessThan(82 * 1024);
  expect(later).toBeLessThan(24 * 1024);
  expect(later).toBeGreaterThan(1024);
});

test('whoever asks for the condition `browser` gets it', () => {
  const code = "console.log(['skein', 'skein/diloco'].map((name) => import.meta.resolve(name)).join(' '))";
  const node = (...conditions: string[]) =>
    execFileSync(process.execPath, [...conditions, '--input-type=module', '-e', code], { cwd: ROOT, encoding: 'utf8' });
  expect(node('--conditions=browser')).toMatch(/dist\/browser\/skein\.js .*dist\/browser\/diloco\.js\n$/);
  expect(node()).toMatch(/dist\/src\/index\.js .*dist\/src\/diloco\/index\.js\n$/);
});

test('the kernels lie beside it, and are those of Node', () => {
  const beside = readFileSync(new URL('../../dist/browser/kernels.wasm', import.meta.url));
  const inNode = readFileSync(new URL('../../dist/src/kernels/generated/kernels-wasm.js', import.meta.url), 'utf8');
  expect(WebAssembly.validate(new Uint8Array(beside))).toBe(true);
  const base64 = [...inNode.matchAll(/'([A-Za-z0-9+/=]+)',/g)].map((match) => match[1]).join('');
  expect(beside.equals(Buffer.from(base64, 'base64'))).toBe(true);
});

/** What needs a port to listen on, a socket to encrypt, or the secret of a coordinator; `defineProgram` is in a bundle of its own. */
const FOR_NODE = [
  'Coordinator',
  'CoordinatorHttpOptions',
  'CoordinatorListenOptions',
  'Change',
  'Entry',
  'EtcdAccess',
  'Guard',
  'Lease',
  'Store',
  'defineProgram',
  'Encryption',
  'IceServerOptions',
  'PassOptions',
  'Role',
  'diagnose',
  'Examination',
  'examine',
  'makePass',
];

test('its face is that of the package in Node, without what is for Node only', () => {
  const namesOf = (path: string) => {
    const text = readFileSync(new URL(`../../src/${path}`, import.meta.url), 'utf8');
    const lists = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].map((match) => match[1]!);
    return lists.flatMap((list) => list.split(',').map((name) => name.replace(/\btype\b/, '').trim())).filter(Boolean);
  };
  const inNode = namesOf('index.ts');
  expect(inNode).toEqual(expect.arrayContaining(FOR_NODE));
  expect(namesOf('browser/index.ts').sort()).toEqual(inNode.filter((name) => !FOR_NODE.includes(name)).sort());
});
