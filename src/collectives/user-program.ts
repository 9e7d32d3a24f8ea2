/**
 * Programs that users bring for their all-reduces, as data: for a world size, what each rank does with each chunk. (The idea is
 * MSCCL++'s, whose programs are written in a language of their own and run by one executor as well.)
 *
 * A program is expanded and proved (validate.ts) where it was defined, and crosses to the engine as numbers, together with what it
 * becomes when members are lost: so no call ever waits for the user's function. All members must have the same: the label that
 * stands in a call's description has a hash of the numbers in it.
 */
import { ArgumentError } from '../errors.ts';
import { sharedMemory } from '../tensor.ts';
import { hashTag } from '../wire/frame.ts';
import { MAX_WORLD_SIZE } from '../wire/limits.ts';
import type { Instruction, ProgramLabel } from './program.ts';
import {
  type CallProgram,
  type Expansion,
  encode,
  KINDS,
  type ProgramTable,
  planOf,
  type Refusal,
} from './program-code.ts';
import { validatePlans } from './validate.ts';

export type { ProgramTable } from './program-code.ts';

/** So many members may be lost during one call before it fails for want of a program. */
const COVERED_LOSSES = 8;

const MAX_CHUNKS = 4_096;
const MAX_STEPS: number = 2 ** 20;

const NAME = /^[\w .-]{1,64}$/;

/** An all-reduce of the user's own, made by `defineProgram`: `group.allReduce(t, { algorithm: program })`. */
export class Program {
  readonly name: string;
  readonly #expand: (worldSize: number) => ProgramTable;
  readonly #worlds: Map<number, Expansion | Refusal> = new Map();

  /** @internal use `defineProgram` */
  constructor(name: string, expand: (worldSize: number) => ProgramTable) {
    this.name = name;
    this.#expand = expand;
  }

  /**
   * The program for a world of `worldSize`, and for the smaller ones that it may become, but not below `least`.
   *
   * @internal
   * @throws ArgumentError that says which chunk, rank and instruction is at fault in the program for `worldSize`
   */
  forCall(worldSize: number, least: number): CallProgram {
    const worlds: (Expansion | Refusal)[] = [];
    const smallest = Math.min(worldSize, Math.max(1, least, worldSize - COVERED_LOSSES));
    for (let size = worldSize; size >= smallest; size--) {
      worlds.push(this.#world(size));
    }
    const [first] = worlds;
    if (first !== undefined && 'problem' in first) throw new ArgumentError(first.problem);
    return { name: this.name, worlds };
  }

  #world(worldSize: number): Expansion | Refusal {
    let world = this.#worlds.get(worldSize);
    if (world === undefined) {
      world = expansionOf(this.name, worldSize, this.#expand);
      this.#worlds.set(worldSize, world);
    }
    return world;
  }
}

/**
 * Defines an all-reduce. It is checked before a byte moves, for the world size at hand: every send has its receive, nobody waits in a
 * circle, every contribution counts once, and all ranks end with the whole result and the same bits.
 *
 * The value of a chunk at a rank is its own input at first. `send` hands it to another rank; `reduce` combines what arrives into it, the
 * lower rank's operand on the left; `replace` takes what arrives instead. All members must pass programs that say the same.
 *
 * @param name for messages and reports: up to 64 letters, digits, spaces and `_ . -`
 * @param expand a pure function: for a world size (from 2), for each chunk, for each rank, the rank's instructions. Chunks are equal
 *   shares of the tensor, in order. It is also asked for the smaller worlds that lost peers may leave; if it can't say, let it throw
 * @returns what `allReduce` takes as its `algorithm`
 * @throws ArgumentError when the name is none. What is wrong with the program itself is thrown by the call that uses it
 * @example
 * const star = defineProgram('star', (worldSize) => {
 *   const others = Array.from({ length: worldSize - 1 }, (_, index) => index + 1);
 *   const centre = [...others.map((from) => ({ do: 'reduce', from })), ...others.map((to) => ({ do: 'send', to }))];
 *   return [[centre, ...others.map(() => [{ do: 'send', to: 0 }, { do: 'replace', from: 0 }])]];
 * });
 */
export function defineProgram(name: string, expand: (worldSize: number) => ProgramTable): Program {
  if (typeof name !== 'string' || !NAME.test(name)) {
    throw new ArgumentError(
      `A program is called by up to 64 letters, digits, spaces and _ . -, not ${JSON.stringify(name)}.`,
    );
  }
  return new Program(name, expand);
}

function expansionOf(
  name: string,
  worldSize: number,
  expand: (worldSize: number) => ProgramTable,
): Expansion | Refusal {
  try {
    // One rank has nothing to do, and no program should have to say so.
    const table = worldSize === 1 ? [[[]]] : expand(worldSize);
    checkTable(table, worldSize);
    const plain = encode(table, worldSize);
    const code = new Int32Array(sharedMemory(plain.length * 4));
    code.set(plain);
    const label: ProgramLabel = `program:${name}#${hashTag(plain.join(' ')).toString(16)}`;
    const expansion = { worldSize, label, code, sealable: isSealable(table) };
    const count = table.length;
    const plans = Array.from({ length: worldSize }, (_, rank) => planOf(expansion, rank, count));
    validatePlans(plans, { kind: 'allReduce', worldSize, count, root: 0 });
    return expansion;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { worldSize, problem: `Program ${JSON.stringify(name)} is no all-reduce of ${worldSize} ranks. ${reason}` };
  }
}

/** What comes from the user's function has the right shape; ranks are checked with the plans. */
function checkTable(table: ProgramTable, worldSize: number): void {
  const refuse = (reason: string): never => {
    throw new ArgumentError(reason);
  };
  if (!Array.isArray(table) || table.length === 0 || table.length > MAX_CHUNKS) {
    refuse(`It must return an array of 1 to ${MAX_CHUNKS} chunks.`);
  }
  let total = 0;
  for (const [chunk, ranks] of table.entries()) {
    if (!Array.isArray(ranks) || ranks.length !== worldSize) {
      refuse(`Chunk ${chunk} must be an array of the instructions of each of ${worldSize} ranks.`);
    }
    for (const [rank, steps] of ranks.entries()) {
      if (!Array.isArray(steps)) refuse(`What rank ${rank} does with chunk ${chunk} must be an array of instructions.`);
      for (const [index, step] of steps.entries()) {
        const other: unknown = step?.do === 'send' ? step.to : step?.from;
        const isKnown = KINDS.some((kind) => kind === step?.do);
        if (isKnown && Number.isInteger(other) && Number(other) >= 0 && Number(other) < MAX_WORLD_SIZE) continue;
        refuse(
          `In chunk ${chunk} instruction ${index} of rank ${rank} is ${JSON.stringify(step)}: use { do: 'send', to }, { do: 'reduce', from } or { do: 'replace', from }, with a rank.`,
        );
      }
      total += steps.length;
    }
  }
  if (total > MAX_STEPS) refuse(`It has ${total} instructions; ${MAX_STEPS} are the most.`);
}

/**
 * Where values are encoded with loss, ranks agree if one of them finishes each chunk and all others take its bytes, and if no value
 * changes any more once it was encoded: a rank adds up first, then sends, and takes one finished value at most.
 */
function isSealable(table: ProgramTable): boolean {
  return table.every((ranks) => {
    const kinds = ranks.map((steps) => steps.map((step) => step.do));
    const finishers = kinds.filter((steps) => !steps.includes('replace'));
    return finishers.length === 1 && kinds.every(isSealedOnce);
  });
}

function isSealedOnce(steps: readonly Instruction['do'][]): boolean {
  const firstOther = steps.findIndex((kind) => kind !== 'reduce');
  const lastReduce = steps.lastIndexOf('reduce');
  return (firstOther < 0 || lastReduce < firstOther) && steps.indexOf('replace') === steps.lastIndexOf('replace');
}
