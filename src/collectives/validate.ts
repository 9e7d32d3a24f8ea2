/**
 * Proves, before a byte moves, that the plans of all ranks together do what the request says: every send has its
 * receive, nobody waits in a circle, every contribution is counted once, every rank ends with its whole result, and all
 * ranks that share a result have computed it by the same expression, hence to the same bits.
 *
 * The proof is per chunk and symbolic (see symbolic.ts); it costs about as much as one run of the programs.
 */
import { ArgumentError } from '../errors.ts';
import { shareOf } from './partition.ts';
import { checkTask, tensorSizes } from './plan.ts';
import type { ChunkProgram, CollectiveKind, Plan, Rank, Task } from './program.ts';
import { Expressions, nameStep, runSymbolically, type SymbolicValue } from './symbolic.ts';

/** One chunk on all ranks that list it. */
type ChunkOnRanks = ReadonlyMap<Rank, ChunkProgram>;

/**
 * @param plans the plan of each rank, in order of rank
 * @throws ArgumentError that says which chunk and ranks are at fault, and why
 */
export function validatePlans(plans: readonly Plan[], request: Task): void {
  checkTask(request);
  if (plans.length !== request.worldSize) {
    refuse(`there are ${plans.length} plans for ${request.worldSize} ranks`);
  }
  const chunks = chunksOf(plans);
  for (let id = 0; id < chunks.size; id++) {
    const programs = chunks.get(id);
    if (programs === undefined) refuse(`chunk ids go from 0 without gap, but chunk ${id} of ${chunks.size} is missing`);
    checkTensors(id, programs, request);
    checkPairs(id, programs, request.worldSize);
  }
  checkCoverage(plans, request);
  const expressions = new Expressions();
  for (const [id, programs] of chunks) {
    const outcome = runSymbolically(programs, expressions);
    if (!outcome.ok) refuse(`in chunk ${id} ${outcome.reason}`);
    checkResults(id, programs, outcome.values, request);
  }
}

function refuse(reason: string): never {
  throw new ArgumentError(`The plans do not make a collective: ${reason}.`);
}

/** Chunk id → rank → program. */
function chunksOf(plans: readonly Plan[]): ReadonlyMap<number, ChunkOnRanks> {
  const chunks = new Map<number, Map<Rank, ChunkProgram>>();
  const first = plans[0];
  for (const [rank, plan] of plans.entries()) {
    if (plan.algorithm !== first?.algorithm) {
      refuse(`rank 0 takes the algorithm ${first?.algorithm}, rank ${rank} ${plan.algorithm}`);
    }
    for (const program of plan.chunks) {
      const programs = chunks.get(program.id) ?? new Map<Rank, ChunkProgram>();
      if (programs.has(rank)) refuse(`rank ${rank} lists chunk ${program.id} twice`);
      chunks.set(program.id, programs.set(rank, program));
    }
  }
  return chunks;
}

/** Counts agree, and all elements are in the tensors that the ranks have. */
function checkTensors(id: number, programs: ChunkOnRanks, request: Task): void {
  let agreed: { readonly rank: Rank; readonly count: number } | undefined;
  for (const [rank, { count, input, output }] of programs) {
    if (!Number.isSafeInteger(count) || count < 0) refuse(`chunk ${id} has ${count} elements on rank ${rank}`);
    agreed ??= { rank, count };
    if (count !== agreed.count) {
      refuse(`chunk ${id} has ${agreed.count} elements on rank ${agreed.rank}, and ${count} on rank ${rank}`);
    }
    const sizes = tensorSizes(request, rank);
    for (const [name, offset, size] of [
      ['input', input, sizes.input],
      ['output', output, sizes.output],
    ] as const) {
      if (offset === null) continue;
      if (!Number.isSafeInteger(offset) || offset < 0 || offset + count > size) {
        refuse(
          `chunk ${id} is at ${offset} in rank ${rank}'s ${name}, but its ${count} elements do not fit the ${size} there`,
        );
      }
    }
  }
}

/** As many sends from a to b as receives. Messages of one chunk between two ranks keep their order, so numbers suffice. */
function checkPairs(id: number, programs: ChunkOnRanks, worldSize: number): void {
  const balance = new Map<string, { from: Rank; to: Rank; sends: string[]; receives: string[] }>();
  for (const [rank, { steps }] of programs) {
    for (const [index, step] of steps.entries()) {
      const [from, to] = step.do === 'send' ? [rank, step.to] : [step.from, rank];
      const other = step.do === 'send' ? step.to : step.from;
      if (!Number.isSafeInteger(other) || other < 0 || other >= worldSize || other === rank) {
        refuse(
          `in chunk ${id} rank ${rank} names rank ${other} as the other side of a ${step.do} (instruction ${index})`,
        );
      }
      const key = `${from} ${to}`;
      const pair = balance.get(key) ?? { from, to, sends: [], receives: [] };
      (step.do === 'send' ? pair.sends : pair.receives).push(nameStep(rank, index, step));
      balance.set(key, pair);
    }
  }
  for (const { from, to, sends, receives } of balance.values()) {
    const [sent, received] = [sends.length, receives.length];
    if (sent === received) continue;
    const alone = sent > received ? sends[received] : receives[sent];
    refuse(
      `in chunk ${id} rank ${from} sends to rank ${to} ${sent} times, but rank ${to} receives ${received} times: ${alone} has no counterpart`,
    );
  }
}

/** Each rank's outputs lie side by side, from the first element of its result to the last. */
function checkCoverage(plans: readonly Plan[], request: Task): void {
  for (const [rank, plan] of plans.entries()) {
    const outputs = plan.chunks
      .flatMap(({ count, output }) => (output === null || count === 0 ? [] : [{ start: output, end: output + count }]))
      .sort((a, b) => a.start - b.start);
    let covered = 0;
    for (const { start, end } of outputs) {
      if (start > covered) refuse(`rank ${rank} gets no result for its elements ${covered} to ${start - 1}`);
      if (start < covered) refuse(`rank ${rank} gets two results for its element ${start}`);
      covered = end;
    }
    const { output: size } = tensorSizes(request, rank);
    if (covered < size) refuse(`rank ${rank} gets no result for its elements ${covered} to ${size - 1}`);
  }
}

/** Kinds whose ranks all end with the same tensor. */
const SHARED_RESULT: ReadonlySet<CollectiveKind> = new Set(['allReduce', 'barrier', 'broadcast', 'allGather']);

/** Kinds that add up, so that somebody must finish (and scale) the value. */
const REDUCING: ReadonlySet<CollectiveKind> = new Set(['allReduce', 'barrier', 'reduce', 'reduceScatter']);

/** What stands at `offset` of a rank's result: whose contributions, and where they are in those ranks' inputs. */
function sourceOf(request: Task, rank: Rank, offset: number): { contributors: bigint; input: number } {
  const { kind, worldSize, count, root } = request;
  const all = (1n << BigInt(worldSize)) - 1n;
  const only = (source: Rank): bigint => 1n << BigInt(source);
  switch (kind) {
    case 'allReduce':
    case 'barrier':
    case 'reduce':
      return { contributors: all, input: offset };
    case 'reduceScatter':
      return { contributors: all, input: shareOf(count, worldSize, rank).start + offset };
    case 'broadcast':
      return { contributors: only(root), input: offset };
    case 'scatter':
      return { contributors: only(root), input: rank * count + offset };
    case 'allGather':
    case 'gather':
      return { contributors: only(Math.floor(offset / count)), input: offset % count };
    case 'allToAll':
      return { contributors: only(Math.floor(offset / count)), input: rank * count + (offset % count) };
  }
}

function namesOf(contributors: bigint): string {
  const ranks: number[] = [];
  for (let rank = 0; contributors >> BigInt(rank) !== 0n; rank++) {
    if (((contributors >> BigInt(rank)) & 1n) === 1n) ranks.push(rank);
  }
  return ranks.length === 0 ? 'nobody' : `rank${ranks.length > 1 ? 's' : ''} ${ranks.join(', ')}`;
}

/** What each rank ended with is what the kind promises, and the same everywhere. */
function checkResults(
  id: number,
  programs: ChunkOnRanks,
  values: ReadonlyMap<Rank, SymbolicValue | null>,
  request: Task,
): void {
  let first: { readonly rank: Rank; readonly value: SymbolicValue } | undefined;
  let keepers = 0;
  for (const [rank, program] of programs) {
    if (program.output === null || program.count === 0) continue;
    keepers += 1;
    const value = values.get(rank) ?? null;
    if (value === null) refuse(`rank ${rank} is to keep chunk ${id}, but never gets a value for it`);
    checkContributors(id, rank, program.output, value, programs, request);
    if (REDUCING.has(request.kind) && request.worldSize > 1 && !value.isFinished) {
      refuse(`rank ${rank} keeps a value of chunk ${id} that no rank has finished`);
    }
    first ??= { rank, value };
    if (value.expression !== first.value.expression) {
      refuse(`ranks ${first.rank} and ${rank} add up chunk ${id} in different orders, so their bits may differ`);
    }
  }
  if (SHARED_RESULT.has(request.kind) && keepers > 0 && keepers < request.worldSize) {
    refuse(`all ranks share the result, but only ${keepers} of ${request.worldSize} keep chunk ${id}`);
  }
}

function checkContributors(
  id: number,
  rank: Rank,
  output: number,
  value: SymbolicValue,
  programs: ChunkOnRanks,
  request: Task,
): void {
  const { count } = programs.get(rank) ?? { count: 0 };
  const expected = sourceOf(request, rank, output);
  if (value.contributors !== expected.contributors) {
    const got = namesOf(value.contributors);
    refuse(`rank ${rank} ends chunk ${id} with contributions of ${got} instead of ${namesOf(expected.contributors)}`);
  }
  // Where the result is made of parts of several ranks, a chunk must not reach over the edge of one.
  if (sourceOf(request, rank, output + count - 1).contributors !== expected.contributors) {
    refuse(`chunk ${id} reaches over the parts of two ranks in rank ${rank}'s output`);
  }
  for (const [contributor, { input }] of programs) {
    if (((value.contributors >> BigInt(contributor)) & 1n) === 1n && input !== expected.input) {
      refuse(
        `chunk ${id} takes rank ${contributor}'s elements from ${input}, but rank ${rank}'s output needs ${expected.input}`,
      );
    }
  }
}
