/** How verdicts speak of peers, calls and time. */
import type { FlightCall } from '../wire/flight.ts';

/** `41 s`, `3 min`, `0.4 s`. */
export function timeOf(ms: number): string {
  if (ms < 1_000) return `${(Math.max(0, ms) / 1_000).toFixed(1)} s`;
  return ms < 120_000 ? `${Math.round(ms / 1_000)} s` : `${Math.round(ms / 60_000)} min`;
}

/** `allReduce` → `all-reduce`. */
function kindOf({ kind }: FlightCall): string {
  return kind.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `all-reduce #812 (tag "grad")`. */
export function callOf(call: FlightCall): string {
  return `${kindOf(call)} #${call.sequence}${call.tag === '' ? '' : ` (tag ${JSON.stringify(call.tag)})`}`;
}

const SHAPE_OF: readonly (readonly [string, (call: FlightCall) => string])[] = [
  ['', kindOf],
  ['', ({ count, dtype }) => `${count.toLocaleString('en')} ${dtype}`],
  ['op', ({ op }) => op ?? 'none'],
  ['root', ({ root }) => root ?? 'none'],
  ['codec', ({ codec }) => codec],
  ['algorithm', ({ algorithm }) => algorithm ?? 'none'],
];

/** In what some calls that should be the same differ, as each of them has it: `1,024 f32`, `op max`. */
export function differences(calls: readonly FlightCall[]): string[] {
  const differing = SHAPE_OF.filter(([, of]) => new Set(calls.map(of)).size > 1);
  return calls.map((call) =>
    differing.length === 0
      ? call.description
      : differing.map(([name, of]) => (name === '' ? of(call) : `${name} ${of(call)}`)).join(', '),
  );
}

/** Names peers by their ranks in a view; those that are not in it by their ids. */
export class Names {
  readonly #ranks: Map<string, number>;

  /** @param members by rank */
  constructor(members: readonly string[]) {
    this.#ranks = new Map(members.map((peerId, rank) => [peerId, rank]));
  }

  /** `rank 3 (p3-0a1b2c3d)`. */
  one(peerId: string): string {
    const rank = this.#ranks.get(peerId);
    return rank === undefined ? peerId : `rank ${rank} (${peerId})`;
  }

  /** `ranks 0–2 and 5`; one alone with its id. */
  all(peerIds: readonly string[]): string {
    const [only] = peerIds;
    if (only !== undefined && peerIds.length === 1) return this.one(only);
    const ranks = peerIds.flatMap((peerId) => this.#ranks.get(peerId) ?? []).sort((left, right) => left - right);
    const strangers = peerIds.filter((peerId) => !this.#ranks.has(peerId));
    const spans: string[] = [];
    for (let at = 0; at < ranks.length; ) {
      let end = at;
      while (ranks[end + 1] === ranks[end]! + 1) end += 1;
      spans.push(end === at ? `${ranks[at]}` : `${ranks[at]}${end === at + 1 ? ' and ' : '–'}${ranks[end]}`);
      at = end + 1;
    }
    const known = spans.length === 0 ? [] : [`ranks ${spans.join(', ')}`];
    return [...known, ...strangers].join(' and ') || 'nobody';
  }
}
