/** `recovery: 'salvage'`: what is finished and kept, and the plan for the rest of a tensor. */
import { MAX_TOLD_RANGES } from '../wire/limits.ts';
import type { FinishedRanges } from '../wire/parts.ts';
import { areRanges, intersectRanges, type KeptRange, restOf, type Span, tidyRanges } from '../wire/ranges.ts';
import type { ContributedRange } from './call.ts';
import type { Attempt, Operation } from './operation.ts';
import type { ChunkProgram, Plan } from './program.ts';

/**
 * A plan for `rest` out of a plan for as many elements as `rest` has: each chunk is cut where the rest is, and its pieces
 * are moved there. Every rank must have a part in every chunk, at the same place of input and output, as in an all-reduce:
 * so all ranks number the pieces alike.
 */
export function spreadPlan(plan: Plan, rest: readonly Span[]): Plan {
  const pieces = new Map<number, readonly Span[]>();
  const firstId = new Map<number, number>();
  let ids = 0;
  for (const chunk of [...plan.chunks].sort((left, right) => left.id - right.id)) {
    const spans = piecesOf(chunk, rest);
    pieces.set(chunk.id, spans);
    firstId.set(chunk.id, ids);
    ids += spans.length;
  }
  const chunks = plan.chunks.flatMap((chunk) =>
    pieces.get(chunk.id)!.map(({ start, end }, index): ChunkProgram => {
      const id = firstId.get(chunk.id)! + index; // set above, for every chunk
      return { id, count: end - start, input: start, output: start, steps: chunk.steps };
    }),
  );
  return { algorithm: plan.algorithm, chunks };
}

/** Where the elements of a chunk are, when the rest is laid out without gaps. */
function piecesOf({ input, count }: ChunkProgram, rest: readonly Span[]): readonly Span[] {
  const first = input ?? 0;
  const spans: Span[] = [];
  let before = 0;
  for (const { start, end } of rest) {
    const from = Math.max(first, before);
    const to = Math.min(first + count, before + end - start);
    if (from < to) spans.push({ start: start + from - before, end: start + to - before });
    before += end - start;
  }
  return spans;
}

/** What a rank has finished of the calls that salvage: kept from earlier attempts, and done by the one that stands still. */
export function finishedOf(frozen: readonly Operation[]): readonly FinishedRanges[] {
  let room = MAX_TOLD_RANGES;
  return frozen.flatMap((operation) => {
    if (!salvages(operation) || operation.attempt === null) return [];
    const ranges = finishedRanges(operation, operation.attempt);
    room -= ranges.length;
    return ranges.length === 0 || room < 0 ? [] : [{ id: operation.id, ranges: [...ranges] }];
  });
}

function salvages({ call }: Operation): boolean {
  return call.recovery === 'salvage' && call.kind === 'allReduce' && call.consistency === 'commit';
}

function finishedRanges({ kept, exclusion }: Operation, { epoch, transfer }: Attempt): readonly KeptRange[] {
  // Whoever is excluded had a part in it.
  if (exclusion !== null && epoch < exclusion.epoch) return [];
  return tidyRanges([...kept, ...transfer.finishedSpans().map((span) => ({ ...span, epoch }))]);
}

/** Keeps what all have finished. It must be finished here, whoever says so. */
export function keepOf(operation: Operation, ranges: readonly KeptRange[]): void {
  const { attempt, call } = operation;
  const usable = attempt !== null && salvages(operation) && areRanges(ranges, call.count);
  operation.kept = usable ? intersectRanges(finishedRanges(operation, attempt), ranges) : [];
}

/** What each range of the result was made of; nothing where it is the same for all. */
export function contributedRanges(
  { kept, contributors, call }: Operation,
  attempt: Attempt,
): readonly ContributedRange[] {
  if (kept.length === 0) return [];
  const redone = restOf(kept, call.count).map((span) => ({ ...span, epoch: attempt.epoch }));
  return [...kept, ...redone]
    .sort((left, right) => left.start - right.start)
    .map(({ start, end, epoch }) => ({ start, end, contributors: contributors.get(epoch) ?? [] }));
}
