/**
 * Programs that go straight from source to destination, one hop each. A rank's own part has an input, an output and no
 * steps: it is copied.
 *
 * Where a rank sends to many, it begins with the next rank up and goes round, so that at any moment the ranks send to
 * different destinations instead of all to rank 0.
 */
import { reduce, replace, send } from './instructions.ts';
import { shareOf } from './partition.ts';
import type { ChunkProgram, Rank } from './program.ts';

/** All ranks, beginning with `rank` itself and going up and round. */
function fromHereRound(worldSize: number, rank: Rank): readonly Rank[] {
  return Array.from({ length: worldSize }, (_, distance) => (rank + distance) % worldSize);
}

/** Chunk r is rank r's part; the root puts them side by side. */
export function directGather(worldSize: number, rank: Rank, count: number, root: Rank): readonly ChunkProgram[] {
  if (rank !== root) return [{ id: rank, count, input: 0, output: null, steps: [send(root)] }];
  return fromHereRound(worldSize, rank).map((source) => {
    if (source === rank) return { id: rank, count, input: 0, output: rank * count, steps: [] };
    return { id: source, count, input: null, output: source * count, steps: [replace(source)] };
  });
}

/** Chunk r is what the root has for rank r. */
export function directScatter(worldSize: number, rank: Rank, count: number, root: Rank): readonly ChunkProgram[] {
  if (rank !== root) return [{ id: rank, count, input: null, output: 0, steps: [replace(root)] }];
  return fromHereRound(worldSize, rank).map((destination) => {
    const input = destination * count;
    if (destination === rank) return { id: rank, count, input, output: 0, steps: [] };
    return { id: destination, count, input, output: null, steps: [send(destination)] };
  });
}

/** Chunk s·N + d is what rank s has for rank d. */
export function directAllToAll(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  return fromHereRound(worldSize, rank).flatMap((other): readonly ChunkProgram[] => {
    const outgoing = rank * worldSize + other;
    const incoming = other * worldSize + rank;
    const place = other * count;
    if (other === rank) return [{ id: outgoing, count, input: place, output: place, steps: [] }];
    return [
      { id: outgoing, count, input: place, output: null, steps: [send(other)] },
      { id: incoming, count, input: null, output: place, steps: [replace(other)] },
    ];
  });
}

/** Chunk r is rank r's part, sent to each of the others: one hop instead of the ring's N−1, over N−1 links instead of 2. */
export function directAllGather(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  const [, ...others] = fromHereRound(worldSize, rank);
  return [
    { id: rank, count, input: 0, output: rank * count, steps: others.map(send) },
    ...others.map((source) => ({
      id: source,
      count,
      input: null,
      output: source * count,
      steps: [replace(source)],
    })),
  ];
}

/**
 * Chunk c is rank c's to add up: all others send it theirs, it adds them in the order in which they set out (from the rank
 * below it, down and round), whatever the order of arrival, and sends the sum to each. A value is encoded twice on its way, on
 * any number of ranks, so what a codec drops does not grow with them. N = 4, chunk 0:
 *
 *     rank   3, 2, 1 ──▶ 0 ──▶ 1, 2, 3
 *            d, c, b    dcba  (copies)
 */
export function directAllReduce(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  const [, ...others] = fromHereRound(worldSize, rank);
  return [rank, ...others].map((owner) => {
    const share = shareOf(count, worldSize, owner);
    const steps =
      owner === rank ? [...[...others].reverse().map(reduce), ...others.map(send)] : [send(owner), replace(owner)];
    return { id: owner, count: share.count, input: share.start, output: share.start, steps };
  });
}

/** The first half of `directAllReduce`: the sum stays with its owner. */
export function directReduceScatter(worldSize: number, rank: Rank, count: number): readonly ChunkProgram[] {
  const [, ...others] = fromHereRound(worldSize, rank);
  return [rank, ...others].map((owner) => {
    const share = shareOf(count, worldSize, owner);
    if (owner !== rank)
      return { id: owner, count: share.count, input: share.start, output: null, steps: [send(owner)] };
    return { id: rank, count: share.count, input: share.start, output: 0, steps: [...others].reverse().map(reduce) };
  });
}
