/**
 * By which figures the members of a view choose algorithms (`costs.ts`), as the coordinator finds them: from what they measure of the
 * ways between them, and from how many of them share a machine's processors. A machine that is shown the view once a second.
 *
 * All members of a view must choose alike, so figures are a fact of its generation: they are set when it is made, and stay. To make one for their
 * sake alone takes figures that were off, by more than noise, at several looks in a row.
 */
import { NO_WAY, type WayCosts, type WayFigures } from '../costs.ts';
import type { MeasuredLink } from '../wire/peer-messages.ts';
import type { KnownLink, RingPeer, RingView } from './rings.ts';

/** What is known of the way to a member. */
type MeasuredWay = Omit<MeasuredLink, 'peerId'>;

/** What is known of all ways (`Rings`). */
interface Ways {
  readonly links: readonly KnownLink[];
  /** null: nothing. */
  way(from: string, to: string): MeasuredWay | null;
}

/** A member, as far as the figures depend on it. */
export interface CostPeer extends RingPeer {
  /** Processors of its host. */
  readonly cores: number;
}

/** A figure that differs from what is agreed by less than this factor stays: what that costs is within a few percent. */
const NOTABLE = 1.25;

/** Differences below these are none: what a processor takes is more. */
const NOISE: WayFigures = { hopSeconds: 50e-6, byteSeconds: 50e-12 };

/** Looks at which figures must be off, one after the other, and between two views that are made for their sake (ms). */
const LOOKS = 3;
const REST_MS = 10_000;

export class Calibration {
  #looks = 0;
  #restUntil = Number.NEGATIVE_INFINITY;

  /** To be called once a second, when there is a view and nothing is to be decided. */
  look(agreed: WayCosts, measured: WayCosts): void {
    this.#looks = settled(agreed, measured) === agreed ? 0 : this.#looks + 1;
  }

  /** Whether it is worth a view of its own to agree on others. */
  isDue(now: number): boolean {
    return this.#looks >= LOOKS && now >= this.#restUntil;
  }

  /** A generation was made. */
  onAgreed(now: number): void {
    this.#looks = 0;
    this.#restUntil = now + REST_MS;
  }
}

/** What to agree on, after what was agreed before: the same object where nothing is off by more than noise. */
export function settled(agreed: WayCosts, measured: WayCosts): WayCosts {
  const near = settledWay(agreed.near, measured.near);
  const far = settledWay(agreed.far, measured.far);
  const ring = measured.ring === null || agreed.ring === null ? measured.ring : settledWay(agreed.ring, measured.ring);
  const sharing = isNotable(agreed.sharing, measured.sharing, 0) ? measured.sharing : agreed.sharing;
  const isSame = near === agreed.near && far === agreed.far && ring === agreed.ring && sharing === agreed.sharing;
  return isSame ? agreed : { near, far, ring, sharing };
}

function settledWay(agreed: WayFigures, measured: WayFigures): WayFigures {
  const hop = isNotable(agreed.hopSeconds, measured.hopSeconds, NOISE.hopSeconds);
  const byte = isNotable(agreed.byteSeconds, measured.byteSeconds, NOISE.byteSeconds);
  if (!hop && !byte) return agreed;
  return {
    hopSeconds: hop ? measured.hopSeconds : agreed.hopSeconds,
    byteSeconds: byte ? measured.byteSeconds : agreed.byteSeconds,
  };
}

function isNotable(agreed: number, measured: number, noise: number): boolean {
  const [less, more] = agreed < measured ? [agreed, measured] : [measured, agreed];
  return more > NOTABLE * less && more - less > noise;
}

/**
 * The figures that measured ways make. Whoever waits for all ranks waits for the slowest way that they use, and algorithms that know
 * nothing of ways use some of each class: so its slowest counts. The ring goes round slow ways: its own hops count.
 *
 * @param known where nothing was measured
 */
export function measuredCosts({ ring, isCut }: RingView<CostPeer>, ways: Ways, known: WayCosts): WayCosts {
  const members = new Map(ring.map((member) => [member.peerId, member]));
  const classes = { near: new Slowest(), far: new Slowest() };
  for (const way of ways.links) {
    const [from, to] = [members.get(way.from), members.get(way.to)];
    if (from === undefined || to === undefined || from.hostKey === to.hostKey || isCut(way.from, way.to)) continue;
    classes[from.site === to.site ? 'near' : 'far'].add(way);
  }
  return {
    near: classes.near.figures(known.near),
    far: classes.far.figures(known.far),
    ring: ringFigures(ring, isCut, ways),
    sharing: sharingOf(ring),
  };
}

class Slowest {
  #hop: number | null = null;
  #byte: number | null = null;

  add({ bytesPerSecond, delayMs }: MeasuredWay): void {
    if (delayMs !== null) this.#hop = Math.max(this.#hop ?? 0, delayMs / 1_000);
    if (bytesPerSecond !== null) this.#byte = Math.max(this.#byte ?? 0, 1 / bytesPerSecond);
  }

  figures(known: WayFigures): WayFigures {
    return { hopSeconds: this.#hop ?? known.hopSeconds, byteSeconds: this.#byte ?? known.byteSeconds };
  }
}

/** A vector passes all hops of the ring, one after the other, and its segments no faster than the slowest lets them; null: not all were measured. */
function ringFigures(
  ring: readonly CostPeer[],
  isCut: (from: string, to: string) => boolean,
  ways: Ways,
): WayFigures | null {
  let [seconds, byteSeconds] = [0, 0];
  let isRemote = false;
  for (const [at, from] of ring.entries()) {
    const to = ring[(at + 1) % ring.length]!;
    if (from.hostKey === to.hostKey) continue;
    isRemote = true;
    const way = isCut(from.peerId, to.peerId) ? null : ways.way(from.peerId, to.peerId);
    if (way === null || way.bytesPerSecond === null || way.delayMs === null) return null;
    seconds += way.delayMs / 1_000;
    byteSeconds = Math.max(byteSeconds, 1 / way.bytesPerSecond);
  }
  return isRemote ? { hopSeconds: seconds / ring.length, byteSeconds } : NO_WAY;
}

/** Members for each processor, where they are most crowded. */
function sharingOf(members: readonly CostPeer[]): number {
  const hosts = new Map<string, number>();
  for (const { hostKey } of members) hosts.set(hostKey, (hosts.get(hostKey) ?? 0) + 1);
  return members.reduce((most, { hostKey, cores }) => Math.max(most, (hosts.get(hostKey) ?? 0) / cores), 0);
}
