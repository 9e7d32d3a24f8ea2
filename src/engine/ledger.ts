/**
 * What outlives a coordinator, as it stands in a store: term, epoch and members of each run, and which passes for one peer were
 * used. All of it is read once; from then on this coordinator is the only one that writes, or finds its writes refused.
 *
 *     runs/<name>      {term, epoch, members}
 *     passes/<id>      {by, expires}
 *     term             of the last leader, where coordinators elect one
 *     leader           {id, address}, bound to the leader's lease
 */
import * as v from 'valibot';
import { ArgumentError } from '../errors.ts';
import type { LeaderKey } from '../membership/election.ts';
import type { StoredRun } from '../membership/events.ts';
import type { Change, Entry, Guard, Store } from '../store/store.ts';
import type { PassUse, UsedPass } from './token.ts';

export const LEADER_KEY = 'leader';
const TERM_KEY = 'term';
const RUNS = 'runs/';
const PASSES = 'passes/';

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const runSchema = v.strictObject({ term: count, epoch: count, members: v.array(v.string()) });
const passSchema = v.strictObject({ by: v.string(), expires: count });
const leaderSchema = v.strictObject({ id: v.string(), address: v.string() });

function read<T>(schema: v.GenericSchema<unknown, T>, { key, value }: Entry): T {
  try {
    return v.parse(schema, JSON.parse(value));
  } catch (error) {
    throw new ArgumentError(
      `${JSON.stringify(key)} in the coordinator's store is not what a coordinator wrote (${String(error)}): name another store, or remove it to begin anew.`,
    );
  }
}

/** Another coordinator has taken over: what was to be written was not. */
export class NotLeader extends Error {}

export class Ledger {
  /** Above that of every earlier leader; 0 where nobody is elected. */
  readonly term: number;
  readonly #store: Store;
  /** Only with this is anything written. */
  readonly #leadership: readonly Guard[];
  readonly #runs: Map<string, StoredRun> = new Map();
  readonly #usedPasses: UsedPass[] = [];
  /** Last revisions of the keys: a write that comes late must not undo a later one. */
  readonly #modified: Map<string, number> = new Map();
  /** By key: the write that is under way, or the last of several. */
  readonly #writing: Map<string, Promise<void>> = new Map();

  /**
   * @param created of the leader's key, by who holds it; null where nobody is elected
   * @throws StoreError, NotLeader, ArgumentError when the store holds something else
   */
  static async open(store: Store, created: number | null): Promise<Ledger> {
    const entries = [...(await store.list(RUNS)), ...(await store.list(PASSES))];
    if (created === null) return new Ledger(store, [], entries, 0);
    // Read by the one whose key is there already: nothing that an earlier leader wrote can come after it.
    const before = await store.get(TERM_KEY);
    const terms = entries.filter(({ key }) => key.startsWith(RUNS)).map((entry) => read(runSchema, entry).term);
    const term = 1 + Math.max(0, before === null ? 0 : read(count, before), ...terms);
    const ledger = new Ledger(store, [{ key: LEADER_KEY, created }], entries, term);
    if (before !== null) ledger.#modified.set(TERM_KEY, before.modified);
    await ledger.#write(TERM_KEY, `${term}`);
    return ledger;
  }

  private constructor(store: Store, leadership: readonly Guard[], entries: readonly Entry[], term: number) {
    this.#store = store;
    this.#leadership = leadership;
    this.term = term;
    for (const entry of entries) {
      const { key, modified } = entry;
      this.#modified.set(key, modified);
      if (key.startsWith(RUNS)) this.#runs.set(decodeURIComponent(key.slice(RUNS.length)), read(runSchema, entry));
      else this.#usedPasses.push({ id: key.slice(PASSES.length), ...read(passSchema, entry) });
    }
  }

  /** The run as it was stored last, with a term that the next one is to be above; null when there is nothing to know. */
  load(run: string): StoredRun | null {
    const stored = this.#runs.get(run) ?? null;
    if (this.term === 0) return stored;
    const { term = 0, epoch = 0, members = [] } = stored ?? {};
    return { term: Math.max(term, this.term - 1), epoch, members };
  }

  get usedPasses(): readonly UsedPass[] {
    return this.#usedPasses;
  }

  /** @throws StoreError, NotLeader */
  async saveRun(run: string, state: StoredRun): Promise<void> {
    this.#runs.set(run, state);
    await this.#write(`${RUNS}${encodeURIComponent(run)}`, JSON.stringify(state));
  }

  /** @throws StoreError, NotLeader */
  async savePass({ pass: { id, by, expires }, expired }: PassUse): Promise<void> {
    const forgotten = expired.map((old) => ({ delete: `${PASSES}${old}` }));
    await this.#write(`${PASSES}${id}`, JSON.stringify({ by, expires }), forgotten);
    for (const change of forgotten) this.#modified.delete(change.delete);
  }

  /** One after the other: a run that was forgotten and came again may still have something to store. */
  async #write(key: string, value: string, others: readonly Change[] = []): Promise<void> {
    const before = this.#writing.get(key);
    const write =
      before === undefined ? this.#put(key, value, others) : before.then(() => this.#put(key, value, others));
    const over = write.catch(() => {});
    this.#writing.set(key, over);
    await write.finally(() => {
      if (this.#writing.get(key) === over) this.#writing.delete(key);
    });
  }

  /** An earlier attempt at the same may have failed, and be carried out after all, at any time: the guard on the key keeps it out. */
  async #put(key: string, value: string, others: readonly Change[]): Promise<void> {
    const commit = () => {
      const guards = [...this.#leadership, { key, modified: this.#modified.get(key) ?? 0 }];
      return this.#store.commit(guards, [{ put: key, value }, ...others]);
    };
    let revision = await commit();
    if (revision === null) {
      for (const guard of this.#leadership) {
        const leader = await this.#store.get(guard.key);
        if (leader === null || !('created' in guard) || leader.created !== guard.created) throw new NotLeader();
      }
      const entry = await this.#store.get(key);
      if (entry?.value === value) revision = entry.modified;
      else {
        this.#modified.set(key, entry?.modified ?? 0);
        revision = await commit();
        if (revision === null) throw new NotLeader();
      }
    }
    this.#modified.set(key, revision);
  }
}

/** Who leads, as its key says. */
export function readLeader(entry: Entry): LeaderKey {
  return { created: entry.created, ...read(leaderSchema, entry) };
}

export function writeLeader(id: string, address: string): string {
  return JSON.stringify({ id, address });
}
