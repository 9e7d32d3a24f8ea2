/** What outlives a coordinator: term, epoch and members of each run, and which passes for one peer were used. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import * as v from 'valibot';
import { ArgumentError } from '../errors.ts';
import type { StoredRun } from '../membership/coordinator.ts';

/** A pass that is good for one peer, and was used. */
export interface UsedPass {
  readonly id: string;
  /** The peer that came by it. */
  readonly by: string;
  /** Seconds since 1970. */
  readonly expires: number;
}

/** Synchronous: nothing that a coordinator says may go out before it is stored. */
export interface CoordinatorStore {
  load(run: string): StoredRun | null;
  save(run: string, state: StoredRun): void;
  loadUsedPasses(): readonly UsedPass[];
  /** In place of all that were saved before; at most 16,384. */
  saveUsedPasses(passes: readonly UsedPass[]): void;
}

/** Forgets everything when its process ends. */
export function memoryStore(): CoordinatorStore {
  const runs = new Map<string, StoredRun>();
  let used: readonly UsedPass[] = [];
  return {
    load: (run) => runs.get(run) ?? null,
    save: (run, state) => void runs.set(run, state),
    loadUsedPasses: () => used,
    saveUsedPasses(passes) {
      used = passes;
    },
  };
}

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const runsSchema = v.record(v.string(), v.strictObject({ term: count, epoch: count, members: v.array(v.string()) }));
const usedSchema = v.array(v.strictObject({ id: v.string(), by: v.string(), expires: count }));
const fileSchema = v.strictObject({ runs: runsSchema, usedPasses: usedSchema });
type Stored = v.InferOutput<typeof fileSchema>;

/** A store of an earlier release has nothing but its runs. */
const anySchema = v.union([fileSchema, runsSchema]);

function readFile(path: string): Stored {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { runs: {}, usedPasses: [] }; // thrown by readFileSync
    throw error;
  }
  try {
    const stored = v.parse(anySchema, JSON.parse(text));
    return v.is(fileSchema, stored) ? stored : { runs: stored, usedPasses: [] };
  } catch (error) {
    throw new ArgumentError(
      `${path} is no coordinator's store (${String(error)}): name another file, or remove it to begin anew.`,
    );
  }
}

/**
 * Keeps the runs and the used passes in a JSON file, which is replaced as a whole, so that it is never half-written.
 *
 * @throws ArgumentError when the file holds something else
 */
export function fileStore(path: string): CoordinatorStore {
  const stored = readFile(path);
  const runs = new Map<string, StoredRun>(Object.entries(stored.runs));
  let usedPasses: readonly UsedPass[] = stored.usedPasses;
  const write = () => {
    writeFileSync(`${path}.new`, JSON.stringify({ runs: Object.fromEntries(runs), usedPasses }));
    renameSync(`${path}.new`, path);
  };
  return {
    load: (run) => runs.get(run) ?? null,
    save(run, state) {
      runs.set(run, state);
      write();
    },
    loadUsedPasses: () => usedPasses,
    saveUsedPasses(passes) {
      usedPasses = passes;
      write();
    },
  };
}
