/** Breeds a mutant in a folder of its own, and lets the simulator loose on it. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Mutant } from './mutants.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** What was built of the product and of the simulator. */
const PARTS = ['dist/src', 'dist/test/sim', 'dist/test/store', 'package.json'];

/** Compiles one file, as tsconfig.build.json has it, and looks at no other. */
const COMPILE = [
  ...['--noCheck', '--noResolve', '--ignoreConfig', '--types', '', '--rootDir', '.', '--outDir', 'dist'],
  ...['--target', 'es2022', '--module', 'nodenext', '--rewriteRelativeImportExtensions', '--verbatimModuleSyntax'],
];

/** A mutant must be found within so many seeds. */
const SEEDS = 2_000;
const DEADLINE_MS = 240_000;

const run = promisify(execFile);

export interface Catch {
  readonly caught: boolean;
  /** The simulator's last lines. */
  readonly report: string;
}

/** The source that a mutant changes. @throws Error when what it changes is not there, or not only there */
export function placeOf({ file, find }: Mutant): string {
  const source = readFileSync(join(ROOT, file), 'utf8');
  const places = source.split(find).length - 1;
  if (places !== 1) throw new Error(`${JSON.stringify(find)} occurs ${places} times in ${file}: mend the mutant`);
  return source;
}

export async function hunt(mutant: Mutant): Promise<Catch> {
  const { file, find, replace, faults } = mutant;
  const folder = mkdtempSync(join(tmpdir(), 'skein-mutant-'));
  try {
    for (const part of PARTS) cpSync(join(ROOT, part), join(folder, part), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    const source = placeOf(mutant);
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(
      join(folder, file),
      source.replace(find, () => replace),
    );
    const options = { cwd: folder, timeout: DEADLINE_MS, killSignal: 'SIGKILL' as const };
    const compiler = join(ROOT, 'node_modules/.bin/tsc');
    await run(compiler, [...COMPILE, file], options);
    const weather = faults === undefined ? [] : ['--faults', faults];
    const command = ['dist/test/sim/run.js', '--seeds', String(SEEDS), '--first', ...weather];
    return await run(process.execPath, command, options).then(
      ({ stdout }) => ({ caught: false, report: stdout.slice(-500) }),
      // Exit code 1 is a broken invariant; a crash of the simulator itself would tell nothing.
      (error: { readonly code?: number; readonly stdout?: string }) => {
        const report = error.stdout ?? '';
        return { caught: error.code === 1 && /^seed \d+: /m.test(report), report: report.slice(-500) };
      },
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}
