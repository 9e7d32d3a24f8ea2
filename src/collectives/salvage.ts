/** What `recovery: 'salvage'` does anew: the plan for part of a tensor. */
import type { Span } from '../wire/ranges.ts';
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
