/** Who averages with whom: the same on all peers, from what all know. */

/** Mixes the bits of a number (the finaliser of MurmurHash3). */
function scramble(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/**
 * Draws disjoint pairs of ranks.
 *
 * @returns each rank's partner; of an odd number of ranks one is its own
 */
export function pairing(worldSize: number, round: number): number[] {
  const order = Array.from({ length: worldSize }, (_, rank) => rank);
  for (let last = worldSize - 1; last > 0; last--) {
    const other = scramble(scramble(round + 1) + last) % (last + 1);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  const partners = order.slice();
  for (let at = 0; at < worldSize; at += 2) {
    const [one, other] = [order[at]!, order[at + 1] ?? order[at]!];
    partners[one] = other;
    partners[other] = one;
  }
  return partners;
}
