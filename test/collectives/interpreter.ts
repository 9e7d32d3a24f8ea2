/**
 * Runs the plans of all ranks in memory, one instruction at a time, with plain arrays: what programs mean, in the fewest
 * words. Which rank and chunk goes next is drawn from a seed, so a run can be repeated and orders can be compared.
 */

import { tensorSizes } from '../../src/collectives/plan.ts';
import type { ChunkProgram, Plan, PlanRequest, Rank } from '../../src/collectives/program.ts';

/** What the elements are and how two are combined; `left` is the lower rank's. */
export interface Arithmetic<T> {
  combine(left: T, right: T): T;
  /** Applied by whoever finishes a chunk, as `avg` needs it. */
  finish(value: T): T;
}

export interface Outcome<T> {
  /** Per rank; undefined where nothing was written. */
  readonly outputs: readonly (T | undefined)[][];
  /** Elements that each rank handed over. */
  readonly sent: readonly number[];
  /** Most messages that followed from one another. */
  readonly hops: number;
}

/** mulberry32: small, and good enough to shuffle. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Message<T> {
  readonly values: readonly T[];
  /** Messages on the longest way that led to this one, itself included. */
  readonly hops: number;
}

interface Task<T> {
  readonly rank: Rank;
  readonly chunk: ChunkProgram;
  readonly lastReduce: number;
  next: number;
  values: readonly T[] | null;
  hops: number;
}

function taskOf<T>(rank: Rank, chunk: ChunkProgram, input: readonly T[]): Task<T> {
  const values = chunk.input === null ? null : input.slice(chunk.input, chunk.input + chunk.count);
  const isFinisher = chunk.output !== null && chunk.steps.every((step) => step.do !== 'replace');
  const lastReduce = isFinisher ? chunk.steps.map((step) => step.do).lastIndexOf('reduce') : -1;
  return { rank, chunk, lastReduce, next: 0, values, hops: 0 };
}

/** @throws when a rank waits for what never comes, or something is left over */
export function interpret<T>(
  plans: readonly Plan[],
  request: PlanRequest,
  inputs: readonly (readonly T[])[],
  arithmetic: Arithmetic<T>,
  seed: number,
): Outcome<T> {
  const random = randomFrom(seed);
  const outputs = plans.map((_, rank) => new Array<T | undefined>(tensorSizes(request, rank).output).fill(undefined));
  const sent = plans.map(() => 0);
  const channels = new Map<string, Message<T>[]>();
  const channel = (from: Rank, to: Rank, id: number): Message<T>[] => {
    const key = `${from} ${to} ${id}`;
    const queue = channels.get(key) ?? [];
    channels.set(key, queue);
    return queue;
  };
  let hops = 0;

  const isRunnable = ({ rank, chunk, next }: Task<T>): boolean => {
    const step = chunk.steps[next];
    return step === undefined || step.do === 'send' || channel(step.from, rank, chunk.id).length > 0;
  };
  const runStep = (task: Task<T>): void => {
    const { rank, chunk } = task;
    const step = chunk.steps[task.next]!; // the caller saw it
    if (step.do === 'send') {
      if (task.values === null) throw new Error(`rank ${rank} has nothing to send`);
      channel(rank, step.to, chunk.id).push({ values: task.values, hops: task.hops + 1 });
      sent[rank]! += chunk.count;
    } else {
      const message = channel(step.from, rank, chunk.id).shift()!; // isRunnable saw it
      task.hops = Math.max(task.hops, message.hops);
      hops = Math.max(hops, task.hops);
      if (step.do === 'replace') {
        task.values = message.values;
      } else {
        const own = task.values;
        if (own === null) throw new Error(`rank ${rank} has nothing to reduce into`);
        const combined = message.values.map((value, i) =>
          step.from < rank ? arithmetic.combine(value, own[i]!) : arithmetic.combine(own[i]!, value),
        );
        task.values = task.next === task.lastReduce ? combined.map((value) => arithmetic.finish(value)) : combined;
      }
    }
    task.next += 1;
  };

  // Chunks of no elements send nothing, on any rank.
  const tasks = plans.flatMap((plan, rank) =>
    plan.chunks.filter((chunk) => chunk.count > 0).map((chunk) => taskOf(rank, chunk, inputs[rank] ?? [])),
  );
  while (tasks.length > 0) {
    // From a random task onward, so that every runnable one can be next.
    const offset = Math.floor(random() * tasks.length);
    let index = -1;
    for (let i = 0; i < tasks.length && index < 0; i++) {
      const candidate = (offset + i) % tasks.length;
      if (isRunnable(tasks[candidate]!)) index = candidate;
    }
    if (index < 0) throw new Error(`${tasks.length} tasks wait for one another`);
    const task = tasks[index]!;
    if (task.next < task.chunk.steps.length) {
      runStep(task);
      continue;
    }
    if (task.chunk.output !== null) {
      if (task.values === null) throw new Error(`rank ${task.rank} has no value for chunk ${task.chunk.id}`);
      for (const [i, value] of task.values.entries()) outputs[task.rank]![task.chunk.output + i] = value;
    }
    tasks[index] = tasks[tasks.length - 1]!;
    tasks.pop();
  }
  for (const [key, queue] of channels) {
    if (queue.length > 0) throw new Error(`channel ${key} holds ${queue.length} messages that nobody takes`);
  }
  return { outputs, sent, hops };
}
