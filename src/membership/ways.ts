/** Ways between members, where some pairs can't reach one another (*cuts*). */

export type Pair = readonly [string, string];

interface Cut {
  readonly members: readonly string[];
  /** Pairs in the order of `pairOf`. */
  readonly cuts: readonly Pair[];
}

/** The same for both ends. */
export function pairOf(one: string, other: string): Pair {
  return one < other ? [one, other] : [other, one];
}

export function hasCut(cuts: readonly Pair[], [one, other]: Pair): boolean {
  return cuts.some((cut) => cut[0] === one && cut[1] === other);
}

/** Whether the attempts of a view do without the link between two members: it is cut, and others can relay. */
export function goesRound({ members, cuts }: Cut, pair: Pair): boolean {
  const [from, to] = pair;
  if (!members.includes(from) || !members.includes(to)) return true;
  if (!hasCut(cuts, pair)) return false;
  const reached = new Set([from]);
  for (const at of reached)
    for (const next of members) if (next !== at && !hasCut(cuts, pairOf(at, next))) reached.add(next);
  return reached.has(to);
}
