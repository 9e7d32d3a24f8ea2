/**
 * Programs that go straight from source to destination, one hop each. A rank's own part has an input, an output and no
 * steps: it is copied.
 *
 * Where a rank sends to many, it begins with the next rank up and goes round, so that at any moment the ranks send to
 * different destinations instead of all to rank 0.
 */
import { replace, send } from './instructions.ts';
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
