/**
 * The sides of the all-reduce benchmark. Each measures the same thing: N processes on this machine, the time of an iteration
 * from a barrier to its completion, on the slowest rank; sum of f32, separate input and output, every result checked.
 */

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { collect, gloo, type Measurement, openmpi, type RivalTask, raw, rawUnix } from '../../src/benchmark/rivals.ts';
import type { PeerTask } from '../peers/skein-peer.ts';
import { startCoordinator } from './coordinator.ts';

export interface SideMeasurement extends Measurement {
  /** Skein only: peak above what was resident just before the first iteration, in KiB. */
  readonly growthKiB?: number;
}

interface Task extends RivalTask {
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
  measure(task: Task): Promise<SideMeasurement[]>;
}

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
        const reports = new Promise<SideMeasurement[]>((resolve) => {
          for (const peer of peers) peer.once('message', (message) => resolve(message as SideMeasurement[])); // only rank 0 reports
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
  rawUnix,
];
