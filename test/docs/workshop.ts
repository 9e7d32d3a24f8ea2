/**
 * Where blocks are made into programs: a folder inside the package (so that `import … from 'skein'` is the built package), in which
 * one run of the compiler checks all of them and strips their types. Removed when the tests are done.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ROOT } from './documents.ts';
import type { Block } from './markdown.ts';

const PRELUDES = join(ROOT, 'test/docs/preludes');

/** Names that a module exports, as it stands in the source. */
function exportsOf(module: string): string[] {
  const text = readFileSync(module, 'utf8');
  return [...text.matchAll(/^export (?:async )?(?:const|let|function\*?|class) (\w+)/gm)].map((match) => match[1]!);
}

/** The import of what the block leaves to its reader, and uses. On the block's first line, so that lines keep their numbers. */
function preludeImport(block: Block): string {
  const name = block.words.get('prelude');
  if (name === undefined) return '';
  const file = join(PRELUDES, `${name}.ts`);
  if (!existsSync(file)) throw new Error(`${block.document}:${block.line}: there is no prelude ${name}`);
  const used = exportsOf(file).filter((one) => new RegExp(`\\b${one}\\b`).test(block.text));
  return `import { ${used.join(', ')} } from '../preludes/${name}.ts'; `;
}

/** `docs/guide/churn.md` → `docs-guide-churn`. */
function folderOf(document: string): string {
  return document.replace(/\.md$/, '').replaceAll('/', '-');
}

export class Workshop {
  readonly path: string;
  /** Blocks by the file that each was written to, without the folder of the workshop. */
  readonly #sources: Map<string, Block> = new Map();

  constructor() {
    mkdirSync(join(ROOT, 'dist'), { recursive: true });
    this.path = mkdtempSync(join(ROOT, 'dist/docs-'));
    cpSync(PRELUDES, join(this.path, 'source/preludes'), { recursive: true });
  }

  /** @returns where the program will be once `build` has run */
  add(block: Block): string {
    const given = block.words.get('file')?.replace(/\.[jt]s$/, '');
    const isPlain = block.language === 'js';
    const name = `${folderOf(block.document)}/${given ?? `line-${block.line}`}`;
    const source = `${name}.${isPlain ? 'js' : 'ts'}`;
    if (this.#sources.has(source)) throw new Error(`${block.document}:${block.line}: a second ${source}`);
    this.#sources.set(source, block);
    const folder = join(this.path, 'source', folderOf(block.document));
    mkdirSync(folder, { recursive: true });
    // A program is a module, whether it imports something or not.
    writeFileSync(
      join(folder, basename(source)),
      `${preludeImport(block)}${block.text}${block.words.get('then') ?? ''}\nexport {};\n`,
    );
    return join(this.path, 'built', `${name}.js`);
  }

  /** Where the programs of a document are, and its shell commands are run. */
  folder(document: string): string {
    const path = join(this.path, 'built', folderOf(document));
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Writes a program of the test's own, beside the preludes. @returns where it is */
  write(name: string, text: string): string {
    const path = join(this.path, 'built', name);
    writeFileSync(path, text);
    return path;
  }

  /** Checks and compiles all. @returns what is wrong, by document and line; an empty list is good */
  build(): string[] {
    const config = {
      extends: '../../tsconfig.json',
      compilerOptions: {
        noEmit: false,
        rewriteRelativeImportExtensions: true,
        allowJs: true,
        checkJs: true,
        noUnusedLocals: false,
        noUnusedParameters: false,
        // Examples do without: they are to be read, and run as plain JavaScript.
        noPropertyAccessFromIndexSignature: false,
        noUncheckedIndexedAccess: false,
        rootDir: 'source',
        outDir: 'built',
      },
      include: ['source'],
      exclude: [],
    };
    writeFileSync(join(this.path, 'tsconfig.json'), JSON.stringify(config));
    const tsc = join(ROOT, 'node_modules/.bin/tsc');
    const { stdout, stderr } = spawnSync(tsc, ['-p', this.path, '--pretty', 'false'], {
      encoding: 'utf8',
      cwd: this.path,
      timeout: 50_000,
    });
    return `${stdout}${stderr}`
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => this.#located(line));
  }

  #located(line: string): string {
    const found = /^source\/(.+?)\((\d+),\d+\)(.*)$/.exec(line);
    const block = this.#sources.get(found?.[1] ?? '');
    return block === undefined ? line : `${block.document}:${block.line + Number(found![2])}${found![3]}`;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
