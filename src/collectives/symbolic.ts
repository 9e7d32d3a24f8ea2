/**
 * Runs one chunk of all ranks with symbols in place of numbers: what each rank ends with is an expression over the
 * ranks' inputs. Channels are unbounded, so a run that gets stuck here waits in a circle whatever the network does.
 */
import type { ChunkProgram, Instruction, Rank } from './program.ts';

/** A value as a term: equal `expression` means equal bits, whatever the inputs. */
export interface SymbolicValue {
  /** Number of the ordered tree in `Expressions`; the operand of the lower rank is the left child. */
  readonly expression: number;
  /** Bit r is set when rank r's input is in it. */
  readonly contributors: bigint;
  /** A finisher has made it final (and scaled it, for `avg`). */
  readonly isFinished: boolean;
}

/** Gives equal trees equal numbers. Nothing is normalised: a+b and b+a are two expressions, since their bits may differ. */
export class Expressions {
  readonly #numbers = new Map<string, number>();

  leaf(rank: Rank): number {
    return this.#number(`${rank}`);
  }

  node(left: number, right: number): number {
    return this.#number(`${left} ${right}`);
  }

  #number(key: string): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#numbers.set(key, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

/** Where one rank is in its program. */
interface Runner {
  readonly rank: Rank;
  readonly program: ChunkProgram;
  /** Index of the reduce that makes the value final; −1 where the rank is no finisher. */
  readonly finishAt: number;
  next: number;
  value: SymbolicValue | null;
  /** By rank: so many steps of it must have been done for this one to be where it is. */
  readonly known: Int32Array;
}

interface Message {
  readonly value: SymbolicValue;
  /** What the sender knew when it sent. */
  readonly known: Int32Array;
}

/** From one rank to another. `takenAt`: the receiver's steps that take what comes by it, in order. */
interface Channel {
  readonly queue: Message[];
  readonly takenAt: readonly number[];
  sent: number;
}

export type SymbolicOutcome =
  | { readonly ok: true; readonly values: ReadonlyMap<Rank, SymbolicValue | null> }
  | { readonly ok: false; readonly reason: string };

/** As program.ts defines it: the rank has an output, at least one reduce and no replace. */
function finishAtOf(program: ChunkProgram): number {
  if (program.output === null || program.steps.some((step) => step.do === 'replace')) return -1;
  return program.steps.map((step) => step.do).lastIndexOf('reduce');
}

/** For messages: `instruction 2 of rank 1 (reduce from rank 0)`, counted from 0. */
export function nameStep(rank: Rank, index: number, step: Instruction): string {
  const other = step.do === 'send' ? `to rank ${step.to}` : `from rank ${step.from}`;
  return `instruction ${index} of rank ${rank} (${step.do} ${other})`;
}

function refusal({ rank, next }: Runner, step: Instruction, reason: string): SymbolicOutcome {
  return { ok: false, reason: `${nameStep(rank, next, step)}: ${reason}` };
}

function channelTo(receiver: Runner | undefined, from: Rank): Channel {
  const steps = receiver?.program.steps ?? [];
  const takenAt = steps.flatMap((step, index) => (step.do !== 'send' && step.from === from ? [index] : []));
  return { queue: [], takenAt, sent: 0 };
}

function combine(
  runner: Runner,
  from: Rank,
  arrived: SymbolicValue,
  expressions: Expressions,
): SymbolicValue | { readonly reason: string } {
  const { rank, value } = runner;
  if (value === null)
    return { reason: `rank ${rank} reduces what rank ${from} sends into a value that it does not have` };
  if ((value.contributors & arrived.contributors) !== 0n) {
    return { reason: `rank ${rank} reduces a contribution from rank ${from} that its value contains already` };
  }
  if (value.isFinished || arrived.isFinished) {
    return {
      reason: `rank ${rank} reduces a finished value from or with rank ${from}: a finished value only travels on`,
    };
  }
  const [left, right] = from < rank ? [arrived, value] : [value, arrived];
  return {
    expression: expressions.node(left.expression, right.expression),
    contributors: left.contributors | right.contributors,
    isFinished: runner.next === runner.finishAt,
  };
}

/**
 * `programs`: the chunk's program on each rank that lists it. Sends and receives are already known to pair up.
 *
 * A rank keeps one value of a segment from each other rank that comes before its turn. So a second one may only be sent once the
 * first is known to have been taken, by something that came from there.
 */
export function runSymbolically(programs: ReadonlyMap<Rank, ChunkProgram>, expressions: Expressions): SymbolicOutcome {
  const runners = new Map<Rank, Runner>();
  const size = Math.max(0, ...programs.keys()) + 1;
  for (const [rank, program] of programs) {
    const value =
      program.input === null
        ? null
        : { expression: expressions.leaf(rank), contributors: 1n << BigInt(rank), isFinished: false };
    runners.set(rank, { rank, program, finishAt: finishAtOf(program), next: 0, value, known: new Int32Array(size) });
  }
  const channels = new Map<string, Channel>();
  const ready = [...runners.values()];
  for (let runner = ready.pop(); runner !== undefined; runner = ready.pop()) {
    const { rank, program, known } = runner;
    for (let step = program.steps[runner.next]; step !== undefined; step = program.steps[runner.next]) {
      if (step.do === 'send') {
        if (runner.value === null) return refusal(runner, step, `rank ${rank} sends a value that it does not have`);
        const receiver = runners.get(step.to);
        const key = `${rank} ${step.to}`;
        const channel = channels.get(key) ?? channelTo(receiver, rank);
        channels.set(key, channel);
        const before = channel.takenAt[channel.sent - 1];
        if (before !== undefined && known[step.to]! <= before) {
          const reason = `rank ${step.to} may not have taken yet what rank ${rank} sent it before; wait for it first`;
          return refusal(runner, step, reason);
        }
        channel.sent += 1;
        known[rank] = runner.next + 1;
        channel.queue.push({ value: runner.value, known: known.slice() });
        if (receiver !== undefined) ready.push(receiver);
      } else {
        const arrived = channels.get(`${step.from} ${rank}`)?.queue.shift();
        if (arrived === undefined) break; // its sender will put it back among the ready
        const value = step.do === 'replace' ? arrived.value : combine(runner, step.from, arrived.value, expressions);
        if ('reason' in value) return refusal(runner, step, value.reason);
        runner.value = value;
        for (let other = 0; other < size; other++) known[other] = Math.max(known[other]!, arrived.known[other]!);
        known[rank] = runner.next + 1;
      }
      runner.next += 1;
    }
  }
  const stuck = [...runners.values()].flatMap(({ rank, program, next }) => {
    const step = program.steps[next];
    return step === undefined || step.do === 'send' ? [] : [`rank ${rank} (step ${next}) for rank ${step.from}`];
  });
  if (stuck.length > 0) return { ok: false, reason: `ranks wait for one another in a circle: ${stuck.join(', ')}` };
  return { ok: true, values: new Map([...runners].map(([rank, { value }]) => [rank, value])) };
}
