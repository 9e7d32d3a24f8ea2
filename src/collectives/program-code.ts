/** A user's program as an engine knows it: numbers, that were proved to be an all-reduce where they were made (user-program.ts). */
import { reduce, replace, send } from './instructions.ts';
import { shareOf } from './partition.ts';
import type { ChunkProgram, Instruction, Plan, ProgramLabel, Rank } from './program.ts';

/** Chunk → rank → what the rank does with the chunk, in order. Chunks are equal shares of the tensor. */
export type ProgramTable = readonly (readonly (readonly Instruction[])[])[];

/** A program for one world size, as it crosses to the engine. */
export interface Expansion {
  readonly worldSize: number;
  readonly label: ProgramLabel;
  /** See `encode`. In shared memory where there is some, as it is sent along with every call. */
  readonly code: Int32Array;
  /** All ranks get the same bits also with codecs that drop some. */
  readonly sealable: boolean;
}

/** A world size for which the program is none. */
export interface Refusal {
  readonly worldSize: number;
  readonly problem: string;
}

/** What a call takes along of a program. */
export interface CallProgram {
  readonly name: string;
  readonly worlds: readonly (Expansion | Refusal)[];
}

export const KINDS = ['send', 'reduce', 'replace'] as const;

/** Chunks, ranks, then for each chunk and rank the number of steps, and each of them as 4 · the other rank + its kind. */
export function encode(table: ProgramTable, worldSize: number): number[] {
  const code = [table.length, worldSize];
  for (const ranks of table) {
    for (const steps of ranks) {
      code.push(steps.length);
      for (const step of steps) {
        code.push((step.do === 'send' ? step.to : step.from) * KINDS_ROOM + KINDS.indexOf(step.do));
      }
    }
  }
  return code;
}

const KINDS_ROOM = 4;

function decodeStep(code: number): Instruction {
  const other = Math.floor(code / KINDS_ROOM);
  const kind = KINDS[code % KINDS_ROOM];
  if (kind === 'send') return send(other);
  return kind === 'reduce' ? reduce(other) : replace(other);
}

/** What `rank` does in an all-reduce of `count` elements. */
export function planOf({ code, label }: Expansion, rank: Rank, count: number): Plan {
  const [chunkCount = 0, worldSize = 0] = code;
  const chunks: ChunkProgram[] = [];
  let at = 2;
  for (let id = 0; id < chunkCount; id++) {
    const share = shareOf(count, chunkCount, id);
    for (let other = 0; other < worldSize; other++) {
      const end = at + 1 + code[at]!; // written by `encode`, so it is there
      if (other === rank) {
        const steps = Array.from(code.subarray(at + 1, end), decodeStep);
        chunks.push({ id, count: share.count, input: share.start, output: share.start, steps });
      }
      at = end;
    }
  }
  return { algorithm: label, chunks };
}

/**
 * The part of a call's program for a world size.
 *
 * @returns what is wrong where there is none: the same on every member
 */
export function worldOf(program: CallProgram, worldSize: number, isLossy: boolean): Expansion | string {
  const world = program.worlds.find((one) => one.worldSize === worldSize);
  if (world === undefined) {
    return `Program ${JSON.stringify(program.name)} was not prepared for ${worldSize} members: too many came or went while the call was made. Call it again in the present view.`;
  }
  if ('problem' in world) return world.problem;
  if (isLossy && !world.sealable) return unsealable(program.name, worldSize);
  return world;
}

function unsealable(name: string, worldSize: number): string {
  return `Program ${JSON.stringify(name)} can't be used for ${worldSize} ranks with a codec that drops bits, as they would differ: let one rank finish each chunk and the others take its value, and let ranks add up before they send.`;
}
