/** What outlives a coordinator: term, epoch and members of each run. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import * as v from 'valibot';
import { ArgumentError } from '../errors.ts';
import type { StoredRun } from '../membership/coordinator.ts';

/** Synchronous: nothing that a coordinator says may go out before it is stored. */
export interface CoordinatorStore {
  load(run: string): StoredRun | null;
  save(run: string, state: StoredRun): void;
}

/** Forgets everything when its process ends. */
export function memoryStore(): CoordinatorStore {
  const runs = new Map<string, StoredRun>();
  return { load: (run) => runs.get(run) ?? null, save: (run, state) => void runs.set(run, state) };
}

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const fileSchema = v.record(v.string(), v.strictObject({ term: count, epoch: count, members: v.array(v.string()) }));

function readRuns(path: string): Record<string, StoredRun> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}; // thrown by readFileSync
    throw error;
  }
  try {
    return v.parse(fileSchema, JSON.parse(text));
  } catch (error) {
    throw new ArgumentError(
      `${path} is no coordinator's store (${String(error)}): name another file, or remove it to begin anew.`,
    );
  }
}

/**
 * Keeps the runs in a JSON file, which is replaced as a whole, so that it is never half-written.
 *
 * @throws ArgumentError when the file holds something else
 */
export function fileStore(path: string): CoordinatorStore {
  const runs = new Map(Object.entries(readRuns(path)));
  return {
    load: (run) => runs.get(run) ?? null,
    save(run, state) {
      runs.set(run, state);
      writeFileSync(`${path}.new`, JSON.stringify(Object.fromEntries(runs)));
      renameSync(`${path}.new`, path);
    },
  };
}
