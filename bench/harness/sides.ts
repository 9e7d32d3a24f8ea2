/**
 * The sides of the all-reduce benchmark. Each measures the same thing: N processes on this machine, the time of an iteration
 * from a barrier to its completion, on the slowest rank; sum of f32, separate input and output, every result checked.
 */

import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PeerTask } from '../peers/skein-peer.ts';
import { startCoordinator } from './coordinator.ts';

export interface Measurement {
  readonly bytes: number;
  /** Seconds of each iteration. */
  readonly seconds: readonly number[];
  /** Peak resident memory of one rank's process, in KiB. */
  readonly maxRssKiB: number;
  /** Skein only: peak above what was resident just before the first iteration, in KiB. */
  readonly growthKiB?: number;
}

interface Task {
  readonly worldSize: number;
  readonly sizes: readonly number[];
  readonly iterations: number;
  readonly warmups: number;
  /** Skein only: see `PeerTask`. @default true */
  readonly compileFirst?: boolean;
}

export interface Side {
  readonly name: string;
  readonly label: string;
  /** Tensors above this are not measured. */
  readonly largest?: number;
  /** Why it can't be measured here, and what to do about it; null when it can. */
  missing(): string | null;
  measure(task: Task): Promise<Measurement[]>;
}

/** No side takes longer than this for one task (ms). */
const DEADLINE_MS = 240_000;

// Compiled to dist/bench/harness; the C++ sources stay in bench/peers.
const SOURCES = fileURLToPath(new URL('../../../bench/peers/', import.meta.url));
const BUILD = join(SOURCES, 'build');

function compile(name: string, compiler: string, libraries: readonly string[]): string | null {
  const source = join(SOURCES, `${name}.cc`);
  const target = join(BUILD, name);
  if (existsSync(target) && statSync(target).mtimeMs > statSync(source).mtimeMs) return null;
  mkdirSync(BUILD, { recursive: true });
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
function collect(children: readonly ChildProcess[]): Promise<string> {
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

function numbers({ iterations, warmups, sizes }: Task): string[] {
  return [iterations, warmups, ...sizes].map(String);
}

const gloo: Side = {
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

const openmpi: Side = {
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

const raw: Side = {
  name: 'raw',
  label: 'raw TCP ceiling',
  missing: () => compile('raw_ring', 'g++', []),
  async measure(task) {
    return linesOf(await collect([spawn(join(BUILD, 'raw_ring'), [String(task.worldSize), ...numbers(task)])]));
  },
};

type SkeinSettings = Pick<PeerTask, 'engine' | 'transports' | 'consistency'> & Partial<Pick<PeerTask, 'credentials'>>;

export function skein(name: string, label: string, settings: SkeinSettings, largest?: number): Side {
  return {
    name,
    label,
    ...(largest === undefined ? {} : { largest }),
    missing: () => null,
    async measure(task) {
      const credentials = settings.credentials ?? {};
      const { child: coordinator, address } = await startCoordinator({ lostAfterMs: 20_000, ...credentials });
      try {
        const peerTask: PeerTask = { compileFirst: true, ...task, ...settings, credentials, address };
        const script = fileURLToPath(new URL('../peers/skein-peer.js', import.meta.url));
        const peers = Array.from({ length: task.worldSize }, () =>
          fork(script, [JSON.stringify(peerTask)], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] }),
        );
        const reports = new Promise<Measurement[]>((resolve) => {
          for (const peer of peers) peer.once('message', (message) => resolve(message as Measurement[])); // only rank 0 reports
        });
        await collect(peers);
        return await reports;
      } finally {
        coordinator.kill();
      }
    },
  };
}

const KIB_64 = 64 * 1024;

/** In the order in which they are shown. */
export const SIDES: readonly Side[] = [
  skein('skein', 'Skein', { engine: 'worker', transports: ['unix', 'tcp'], consistency: 'commit' }),
  skein('skein-inline', 'Skein, inline engine', {
    engine: 'inline',
    transports: ['unix', 'tcp'],
    consistency: 'commit',
  }),
  skein('skein-tcp', 'Skein over TCP', { engine: 'worker', transports: ['tcp'], consistency: 'commit' }),
  skein('skein-eager', 'Skein, eager', { engine: 'worker', transports: ['unix', 'tcp'], consistency: 'eager' }, KIB_64),
  skein(
    'skein-inline-eager',
    'Skein, inline, eager',
    { engine: 'inline', transports: ['unix', 'tcp'], consistency: 'eager' },
    KIB_64,
  ),
  gloo,
  openmpi,
  raw,
];
