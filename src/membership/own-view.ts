/**
 * The view as a member knows it: what the coordinator has told of it, boundary by boundary and loss by loss, and what is to be told of it
 * to a coordinator that was restarted.
 *
 * Invariants: generations and epochs only grow. What is put in place was not refused.
 */
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import type { WireView } from '../wire/parts.ts';
import { concernedBy, ViewHistory } from './history.ts';
import { hasCut, type Pair } from './ways.ts';

type PeerId = string;

export class OwnView {
  readonly #self: PeerId;
  readonly #history: ViewHistory = new ViewHistory();
  #current: WireView | null = null;
  /** Of the last loss; 0: there was none. */
  #lossEpoch = 0;
  /** Pairs that could not reach one another then. */
  #cuts: readonly Pair[] = [];
  /** Lost since somebody asked. */
  #left: PeerId[] = [];

  constructor(self: PeerId) {
    this.#self = self;
  }

  /** Null before this peer is admitted. */
  get current(): WireView | null {
    return this.#current;
  }

  get epoch(): number | undefined {
    return this.#current?.epoch;
  }

  get lossEpoch(): number {
    return this.#lossEpoch;
  }

  /** The last ones, oldest first. */
  get history(): readonly WireView[] {
    return this.#history.views;
  }

  includes(peerId: PeerId): boolean {
    return this.#current?.members.some((member) => member.peerId === peerId) === true;
  }

  /** What is wrong with a new view; null: nothing. With another, no program could be made. */
  refusal({ members, generation }: WireView): string | null {
    const ids = new Set(members.map((member) => member.peerId));
    if (!ids.has(this.#self)) return 'it sent a view without this peer';
    if (ids.size < members.length) return 'it sent a view with the same member twice';
    if (generation <= (this.#current?.generation ?? 0)) return 'it sent a view that is not new';
    return null;
  }

  /** A boundary is passed where this view was made; its epoch from now on. */
  install(view: WireView): number {
    // A member that comes late to a boundary may have heard of a later loss, which did not concern that boundary's view.
    const epoch = Math.max(view.epoch, this.#current?.epoch ?? 0);
    this.#current = { ...view, epoch };
    // A coordinator that is told of it asks anew who can't reach whom.
    this.#history.add({ ...view, members: [...view.members], cuts: [] });
    return epoch;
  }

  /** @returns the peer to which the way of this one turns out to be cut, if there is one: once for each time that it is */
  onLoss({ epoch, lost, broken, cuts, resumed }: Extract<CoordinatorMessage, { type: 'loss' }>): PeerId | null {
    const gone = lost.map((one) => one.peerId);
    this.#lossEpoch = epoch;
    if (this.#current !== null) {
      const members = this.#current.members.filter((member) => !gone.includes(member.peerId));
      this.#current = { ...this.#current, epoch, members };
    }
    this.#history.onLoss(epoch, gone, concernedBy(gone, broken, resumed));
    this.#left.push(...gone);
    const isNews = broken?.includes(this.#self) === true && hasCut(cuts, broken) && !hasCut(this.#cuts, broken);
    this.#cuts = cuts;
    return isNews ? (broken.find((peerId) => peerId !== this.#self) ?? null) : null;
  }

  takeLeft(): PeerId[] {
    return this.#left.splice(0);
  }
}
