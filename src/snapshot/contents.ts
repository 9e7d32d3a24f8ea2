/** Between a state of the user's and the plain bytes of a snapshot. */
import { ArgumentError } from '../errors.ts';
import { HASH_BYTES, toHex } from '../state/digest.ts';
import { Hasher } from '../state/hash.ts';
import { type Layout, layOut, placeOf } from '../state/layout.ts';
import { stateHash } from '../state/manifest.ts';
import { type SharedState, StateMemory } from '../state/memory.ts';
import { sharedMemory } from '../tensor.ts';
import type { SnapshotEntry } from './snapshot.ts';

/** What a state held at a revision: a copy, in memory that threads can share. */
export interface Frozen {
  readonly revision: number;
  readonly layout: Layout;
  /** Of each entry of the layout. */
  readonly memory: readonly Uint8Array[];
}

/** @param old one that is of no use any more: its memory is used again where it fits */
export function freeze(state: SharedState, source: StateMemory, old: Frozen | null): Frozen {
  source.push();
  const { shapes, memory } = source.spec('');
  const layout = layOut(shapes);
  const copies = memory.map((bytes, index) => {
    const before = old?.memory[index];
    const copy = before?.length === bytes.length ? before : new Uint8Array(sharedMemory(bytes.length));
    copy.set(bytes);
    return copy;
  });
  return { revision: state.revision, layout, memory: copies };
}

/** Puts what was kept back into a state, whose revision becomes that of what was kept. @throws ArgumentError where they don't fit */
export function thaw(state: SharedState, { revision, layout, memory }: Frozen, what: string): void {
  const target = new StateMemory(state, false);
  const spec = target.spec('');
  const text = (entries: readonly { name: string; type: string; bytes: number }[]) =>
    entries.map(({ name, type, bytes }) => `${JSON.stringify(name)} (${type}, ${bytes} bytes)`);
  const [here, there] = [text(spec.shapes), text(layout.entries)];
  const odd = [...here.filter((one) => !there.includes(one)), ...there.filter((one) => !here.includes(one))];
  if (odd.length > 0 || here.length !== there.length) {
    const some = odd.slice(0, 4).join(', ');
    throw new ArgumentError(
      `${what} has other entries than the state that it is to be put into: ${some}. Make them alike.`,
    );
  }
  for (const [index, bytes] of spec.memory.entries()) bytes.set(memory[index]!);
  target.pull();
  state.revision = revision;
}

/** @param revisions of the entries, when each changed last */
export function entriesOf({ layout, memory, revision }: Frozen, revisions?: readonly number[]): SnapshotEntry[] {
  return layout.entries.map(({ name, type }, index) => {
    const bytes = memory[index]!;
    // In files a boolean has one byte.
    return {
      name,
      type,
      revision: revisions?.[index] ?? revision,
      bytes: type === 'boolean' ? bytes.subarray(0, 1) : bytes,
    };
  });
}

export function frozenOf(entries: readonly SnapshotEntry[], revision: number): Frozen {
  const whole = new Map(
    entries.map(({ name, type, bytes }) => {
      if (type !== 'boolean') return [name, bytes];
      const padded = new Uint8Array(sharedMemory(8));
      padded.set(bytes);
      return [name, padded];
    }),
  );
  const layout = layOut(entries.map(({ name, type }) => ({ name, type, bytes: whole.get(name)!.length })));
  return { revision, layout, memory: layout.entries.map(({ name }) => whole.get(name)!) };
}

/** Hashed before others have a turn (bytes). */
const TURN_BYTES: number = 4 * 1024 * 1024;

/** The hash of a state that holds this (hex). */
export async function hashOf({ layout, memory }: Frozen): Promise<string> {
  const hasher = await Hasher.load();
  const table = new Uint8Array(layout.pieces * HASH_BYTES);
  let sinceTurn = 0;
  for (let piece = 0; piece < layout.pieces; piece++) {
    const { entry, start, bytes } = placeOf(layout, piece);
    table.set(hasher.of(memory[entry]!.subarray(start, start + bytes)), piece * HASH_BYTES);
    sinceTurn += bytes;
    if (sinceTurn < TURN_BYTES) continue;
    sinceTurn = 0;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return toHex(stateHash(layout, table, hasher));
}
