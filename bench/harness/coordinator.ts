/** The coordinator of a benchmark, in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { CoordinatorListenOptions } from '../../src/index.ts';
import type { Listening } from '../peers/skein-coordinator.ts';
import { deadline, type Wrap } from './member.ts';

const COORDINATOR = fileURLToPath(new URL('../peers/skein-coordinator.js', import.meta.url));

export interface StartedCoordinator extends Listening {
  readonly child: ChildProcess;
}

/** Resolves when it listens. */
export async function startCoordinator(
  options: Omit<CoordinatorListenOptions, 'store' | 'onNote'> & { readonly store?: string },
  wrap: Wrap = (command) => [...command],
  environment: NodeJS.ProcessEnv = {},
): Promise<StartedCoordinator> {
  const [program, ...args] = wrap([process.execPath, COORDINATOR, JSON.stringify(options)]);
  const child = spawn(program, args, {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, ...environment },
  });
  const listening = new Promise<Listening>((resolve, reject) => {
    child.once('message', (message: Listening) => resolve(message));
    child.once('exit', (code) => reject(new Error(`the coordinator ended with exit code ${code}`)));
  });
  return { ...(await deadline('the coordinator starts', listening)), child };
}
