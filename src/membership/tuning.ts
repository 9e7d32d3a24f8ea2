/**
 * What a view could have that is better, though its members are the same: another order of the ring (`rings.ts`), and other figures by
 * which they choose algorithms (`calibration.ts`). Both are facts of a generation, so whoever makes one asks here, and whoever comes to
 * a boundary asks whether one is worth making. Both rest on what the members tell of the ways between them.
 */
import type { WayCosts } from '../costs.ts';
import type { MeasuredLink } from '../wire/peer-messages.ts';
import type { BrokenWays } from './broken-ways.ts';
import { Calibration, type CostPeer, measuredCosts, settled } from './calibration.ts';
import type { PeerId } from './events.ts';
import type { Generation } from './generations.ts';
import { type KnownLink, type Probe, presentRing, Rings, type RingView } from './rings.ts';
import type { Roster } from './roster.ts';
import { hasCut, pairOf } from './ways.ts';

/** Members, and the order of the ring. */
type Order = Pick<Generation, 'ring' | 'members'>;

export class Tuning {
  readonly #roster: Pick<Roster, 'get'>;
  readonly #ways: Pick<BrokenWays, 'cutsAmong'>;
  readonly #rings: Rings;
  readonly #calibration: Calibration = new Calibration();

  /** @param probes whether ways may be measured that carry nothing */
  constructor(roster: Pick<Roster, 'get'>, ways: Pick<BrokenWays, 'cutsAmong'>, probes: boolean) {
    this.#roster = roster;
    this.#ways = ways;
    this.#rings = new Rings(probes);
  }

  /** A member tells of its ways. */
  report(from: PeerId, links: readonly MeasuredLink[], isExpected: (peerId: PeerId) => boolean, now: number): void {
    this.#rings.report(from, links, isExpected, now);
  }

  forget(peerId: PeerId): void {
    this.#rings.forget(peerId);
  }

  /** To be called once a second, when nothing is to be decided. */
  look(current: Generation, now: number): void {
    const view = this.#viewOf(current);
    this.#rings.look(view, now);
    this.#calibration.look(current.costs, measuredCosts(view, this.#rings, current.costs));
  }

  /** Goes on a little with the search for a better order. */
  work(): void {
    this.#rings.work();
  }

  /** Ways that are to be measured. */
  takeProbes(now: number): readonly Probe[] {
    return this.#rings.takeProbes(now);
  }

  /** An order that is worth a view. */
  betterRing(current: Generation, now: number): readonly PeerId[] | null {
    return this.#rings.better(this.#viewOf(current), now);
  }

  /** Whether the figures are worth one. */
  isOff(now: number): boolean {
    return this.#calibration.isDue(now);
  }

  /** The figures of a generation that is made now: the same object as before it, where they are as good as those. */
  settle(order: Order, agreed: WayCosts, now: number): WayCosts {
    this.#calibration.onAgreed(now);
    return settled(agreed, measuredCosts(this.#viewOf(order), this.#rings, agreed));
  }

  /** The ring as it is gone. */
  ringOf(generation: Generation): readonly PeerId[] {
    return this.#viewOf(generation).ring.map(({ peerId }) => peerId);
  }

  get links(): readonly KnownLink[] {
    return this.#rings.links;
  }

  /** As the members go it, if they knew what can't be reached now. */
  #viewOf({ ring, members }: Order): RingView<CostPeer> {
    const peers = new Map<PeerId, CostPeer>();
    for (const peerId of members) {
      const description = this.#roster.get(peerId)?.description;
      if (description === undefined) continue;
      const { site, hostKey, cores } = description;
      peers.set(peerId, { peerId, site, hostKey, cores });
    }
    const cuts = this.#ways.cutsAmong(members);
    const isCut = (from: PeerId, to: PeerId) => cuts.length > 0 && hasCut(cuts, pairOf(from, to));
    return { ring: presentRing(ring, peers, isCut), isCut };
  }
}
