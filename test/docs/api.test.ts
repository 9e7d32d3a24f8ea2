/** The API reference: it is made from docstrings, all of which can be read, and nothing public is without one. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ROOT, read } from './documents.ts';

/** Of API Extractor's model what is looked at here. */
interface Item {
  readonly kind: string;
  readonly name?: string;
  readonly docComment?: string;
  readonly members?: readonly Item[];
}

/** Their names and types say all, often. */
const MAY_BE_BARE = ['Package', 'EntryPoint', 'Property', 'PropertySignature', 'Constructor', 'IndexSignature'];

const folder = mkdtempSync(join(tmpdir(), 'skein-api-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function modelOf(entry: string): Item {
  return JSON.parse(readFileSync(join(folder, 'models', `${entry}.api.json`), 'utf8')) as Item;
}

function bare(item: Item, path: string): string[] {
  const name = item.kind === 'Package' || item.kind === 'EntryPoint' ? path : `${path}.${item.name}`;
  const own = MAY_BE_BARE.includes(item.kind) || (item.docComment ?? '') !== '' ? [] : [`${item.kind} ${name}`];
  return [...own, ...(item.members ?? []).flatMap((member) => bare(member, name))];
}

/** Names that an entry exports. */
function exportsOf(path: string): string[] {
  const lists = [...read(path).matchAll(/^export (?:type )?\{([^}]*)\}/gms)].map((match) => match[1]!);
  return lists.flatMap((list) => list.split(',').map((one) => one.trim().replace(/^type /, ''))).filter(Boolean);
}

describe('npm run docs:api', () => {
  beforeAll(() => {
    const script = join(ROOT, 'scripts/build-api-docs.mjs');
    const { status, stderr } = spawnSync(process.execPath, [script, folder], { encoding: 'utf8', timeout: 100_000 });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  }, 120_000);

  it.each([
    ['skein', 'src/index.ts'],
    ['skein-diloco', 'src/diloco/index.ts'],
    ['skein-in-a-browser', 'src/browser/index.ts'],
  ])('has a page of %s for each export of %s', (entry, path) => {
    const names = exportsOf(path);
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => !existsSync(join(folder, `${entry}.${name.toLowerCase()}.md`)))).toEqual([]);
  });

  it.each(['skein', 'skein-diloco', 'skein-notes', 'skein-program', 'skein-in-a-browser'])(
    'finds nothing in %s without a docstring',
    (entry) => {
      expect(bare(modelOf(entry), entry)).toEqual([]);
    },
  );

  it('shows what docstrings say: parameters, errors, examples, defaults', () => {
    const page = (name: string) => readFileSync(join(folder, name), 'utf8');
    const call = page('skein.group.allreduce.md');
    for (const text of [
      'receives the result unless `out` is given',
      'MismatchError, QuorumError',
      '```ts\nconst { contributors }',
    ])
      expect(call).toContain(text);
    expect(page('skein.joinoptions.timeout.md')).toContain('Default: 300000.');
    expect(page('index.md')).toContain('[skein/diloco](./skein-diloco.md)');
  });

  it('links only to pages that it made', () => {
    const pages = readdirSync(folder).filter((name) => name.endsWith('.md'));
    const dead = pages.flatMap((name) =>
      [...readFileSync(join(folder, name), 'utf8').matchAll(/\]\(\.\/([^)#]+)\)/g)]
        .map((match) => match[1]!)
        .filter((target) => !existsSync(join(folder, target))),
    );
    expect(dead).toEqual([]);
  });
});
