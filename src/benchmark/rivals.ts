/**
 * Libraries that people know, measured the same way: N processes on this machine, sum of f32, separate input and output, the time
 * of an iteration from a barrier to its completion on the slowest rank, every result checked. Their programs are in bench/peers/
 * and are compiled when they are asked for.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface RivalTask {
  readonly worldSize: number;
  readonly sizes: readonly number[];
  readonly iterations: number;
  readonly warmups: number;
}

export interface Measurement {
  readonly bytes: number;
  /** Seconds of each iteration. */
  readonly seconds: readonly number[];
  /** Peak resident memory of one rank's process, in KiB. */
  readonly maxRssKiB: number;
  /** Processor time of one rank for the iterations in `seconds`. */
  readonly cpuSeconds: number;
}

export interface Rival {
  readonly name: string;
  readonly label: string;
  /** Makes it ready. Null, or why it can't be measured here and what to do about it. */
  missing(): string | null;
  measure(task: RivalTask): Promise<Measurement[]>;
}

/** No task takes longer than this (ms). */
const DEADLINE_MS = 240_000;

// Compiled to dist/src/benchmark; the C++ sources stay in bench/peers.
const SOURCES = fileURLToPath(new URL('../../../bench/peers/', import.meta.url));
const BUILD = join(tmpdir(), `skein-bench-${process.getuid?.() ?? 0}`);

/** @returns null, or why it could not be compiled */
function compile(name: string, compiler: string, libraries: readonly string[]): string | null {
  const source = join(SOURCES, `${name}.cc`);
  const target = join(BUILD, name);
  const newest = Math.max(statSync(source).mtimeMs, statSync(join(SOURCES, 'timing.h')).mtimeMs);
  if (existsSync(target) && statSync(target).mtimeMs > newest) return null;
  mkdirSync(BUILD, { recursive: true, mode: 0o700 });
  try {
    execFileSync(compiler, ['-O2', '-std=c++17', source, '-o', target, ...libraries], { stdio: 'pipe' });
    return null;
  } catch (error) {
    const text = error instanceof Error ? error.message.split('\n').slice(0, 3).join(' ') : String(error);
    return `${compiler} could not build ${name} (${text}): run scripts/setup-system.sh as root`;
  }
}

function linesOf(text: string): Measurement[] {
  const lines = text.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as Measurement); // printed by timing.h
}

/** Runs programs to their end; resolves with what the first of them printed. */
export function collect(children: readonly ChildProcess[]): Promise<string> {
  let output = '';
  let errors = '';
  const timer = setTimeout(() => {
    for (const child of children) child.kill('SIGKILL');
  }, DEADLINE_MS);
  children[0]?.stdout?.on('data', (bytes: Buffer) => {
    output += bytes.toString();
  });
  for (const child of children) {
    child.stderr?.on('data', (bytes: Buffer) => {
      errors += bytes.toString();
    });
  }
  const ended = children.map(
    (child) =>
      new Promise<void>((resolve, reject) => {
        child.on('error', reject);
        child.on('close', (code, signal) => {
          if (code === 0) resolve();
          else reject(new Error(`a side ended with ${signal ?? code}: ${errors.slice(0, 500)}`));
        });
      }),
  );
  return Promise.all(ended)
    .then(() => output)
    .finally(() => {
      clearTimeout(timer);
      for (const child of children) child.kill('SIGKILL');
    });
}

function numbers({ iterations, warmups, sizes }: RivalTask): string[] {
  return [iterations, warmups, ...sizes].map(String);
}

export const gloo: Rival = {
  name: 'gloo',
  label: 'Gloo ring (TCP)',
  missing: () => compile('gloo_allreduce', 'g++', ['-lgloo', '-lpthread']),
  async measure(task) {
    const directory = mkdtempSync(join(tmpdir(), 'skein-bench-'));
    try {
      const ranks = Array.from({ length: task.worldSize }, (_, rank) =>
        spawn(join(BUILD, 'gloo_allreduce'), [String(rank), String(task.worldSize), directory, ...numbers(task)]),
      );
      return linesOf(await collect(ranks));
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
};

export const openmpi: Rival = {
  name: 'openmpi',
  label: 'Open MPI (TCP)',
  missing: () => compile('mpi_allreduce', 'mpicxx', []),
  async measure(task) {
    const settings = ['btl', 'tcp,self', 'btl_tcp_if_include', 'lo', 'mpi_yield_when_idle', '1'];
    const mca = settings.flatMap((value, index) => (index % 2 === 0 ? ['--mca', value] : [value]));
    const root = process.getuid?.() === 0 ? ['--allow-run-as-root'] : [];
    const program = [join(BUILD, 'mpi_allreduce'), ...numbers(task)];
    return linesOf(
      await collect([spawn('mpirun', [...mca, ...root, '--oversubscribe', '-n', String(task.worldSize), ...program])]),
    );
  },
};

/** Each process sends to the next and reads from the one before, and does nothing else. */
function rawRing(name: string, label: string, family: readonly string[]): Rival {
  return {
    name,
    label,
    missing: () => compile('raw_ring', 'g++', []),
    async measure(task) {
      const command = [...family, String(task.worldSize), ...numbers(task)];
      return linesOf(await collect([spawn(join(BUILD, 'raw_ring'), command)]));
    },
  };
}

export const raw: Rival = rawRing('raw', 'raw TCP ceiling', []);

/** The same by the sockets that Skein uses on one host. */
export const rawUnix: Rival = rawRing('raw-unix', 'raw Unix socket ceiling', ['unix']);

export const RIVALS: readonly Rival[] = [gloo, openmpi, raw, rawUnix];
