/** Flight records made by hand: peers that are in a run together, and what each of them has done in it. */
import type { FlightCall, FlightDump, FlightLink } from '../../src/wire/flight.ts';

/** When all records are taken, unless a test says otherwise. */
export const NOW = 1_700_000_100_000;

/** One call of a peer; `ago`: seconds before the record was taken. */
export function called(sequence: number, ago: number, rest: Partial<FlightCall> = {}): FlightCall {
  const { tag = 'grad', generation = 3, count = 1_024, dtype = 'f32', op = 'sum', kind = 'allReduce' } = rest;
  const description = `${kind}(${dtype} × ${count}, ${op}, ring, commit, restart, segments of 262144)`;
  return {
    id: `${generation}:${tag}:${sequence}`,
    kind,
    tag,
    sequence,
    generation,
    epoch: generation,
    dtype,
    count,
    op,
    codec: 'f32',
    root: null,
    algorithm: 'ring',
    description,
    state: 'running',
    waitsFor: 'the others',
    awaits: [],
    worldSize: 4,
    retries: 0,
    calledAt: NOW - ago * 1_000,
    begunAt: NOW - ago * 1_000,
    doneAt: null,
    endedAt: null,
    error: null,
    neighbours: [],
    ...rest,
  };
}

/** The same, and it succeeded a tenth of a second later. */
export function done(sequence: number, ago: number, rest: Partial<FlightCall> = {}): FlightCall {
  const endedAt = NOW - ago * 1_000 + 100;
  return called(sequence, ago, { state: 'committed', waitsFor: null, doneAt: endedAt, endedAt, ...rest });
}

export function failed(sequence: number, ago: number, code: string, message: string, rest: Partial<FlightCall> = {}) {
  const error = { code, message };
  return called(sequence, ago, { state: 'failed', waitsFor: null, endedAt: NOW, error, ...rest });
}

export function linkTo(peerId: string, rest: Partial<FlightLink> = {}): FlightLink {
  const sound = { up: true, receives: true, queuedBytes: 0, silentMs: 50, downMs: 0, cut: false };
  return { peerId, path: 'tcp', ...sound, ...rest };
}

/** A run of `size` peers p0, p1, …; `calls` says what each of them has made. */
export function run(size: number, calls: (rank: number) => readonly FlightCall[]): FlightDump[] {
  const members = Array.from({ length: size }, (_, rank) => `p${rank}`);
  return members.map((peerId, rank) => {
    const own = calls(rank);
    const tags = new Set(own.map(({ tag }) => tag));
    const nextOf = (tag: string) =>
      Math.max(...own.filter((call) => call.tag === tag).map(({ sequence }) => sequence)) + 1;
    return {
      version: 1,
      run: 'default',
      peerId,
      reason: 'asked',
      takenAt: NOW,
      epoch: 3,
      generation: 3,
      boundary: 7,
      members,
      coordinator: { connected: true, silentMs: 100 },
      boundMs: 3_000,
      links: members.filter((other) => other !== peerId).map((other) => linkTo(other)),
      next: [...tags].map((tag) => ({ tag, sequence: nextOf(tag) })),
      calls: [...own],
    };
  });
}
