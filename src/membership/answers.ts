/**
 * What peers are told at boundaries: newcomers by which view they are let in (`admitted`), members what was decided there (`boundary`).
 *
 * Hundreds of members are told the same, so it is the same object as long as nothing has changed: whoever encodes it may do so once.
 */
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import type { WireView } from '../wire/parts.ts';
import type { Agreement } from './agreement.ts';
import type { PeerId } from './events.ts';
import type { Generation } from './generations.ts';
import type { Roster } from './roster.ts';
import type { Pair } from './ways.ts';

/** What its members are told of a generation. */
interface Told {
  readonly of: Generation;
  /** Of which members and cuts: they are replaced when they change. */
  readonly members: readonly PeerId[];
  readonly cuts: readonly Pair[];
  readonly view: WireView;
  /** Who came in with it, and is there still. */
  readonly joined: PeerId[];
}

export class Answers {
  readonly #roster: Pick<Roster, 'siteOf'>;
  readonly #agreement: Pick<Agreement, 'failuresOf' | 'exclusionsOf'>;
  #told: Told | null = null;
  #last: Extract<CoordinatorMessage, { type: 'boundary' }> | null = null;

  constructor(roster: Pick<Roster, 'siteOf'>, agreement: Pick<Agreement, 'failuresOf' | 'exclusionsOf'>) {
    this.#roster = roster;
    this.#agreement = agreement;
  }

  admitted(generation: Generation): CoordinatorMessage {
    const { view, joined } = this.#tell(generation);
    const failed = this.#agreement.failuresOf(generation);
    const excluded = this.#agreement.exclusionsOf(generation);
    return { type: 'admitted', index: generation.boundary, view, joined, failed, excluded };
  }

  /** @param generation that was made there, if one was */
  boundary(index: number, generation: Generation | undefined): CoordinatorMessage {
    const { view, joined } = generation === undefined ? { view: null, joined: [] } : this.#tell(generation);
    const failed = this.#agreement.failuresOf(generation);
    const excluded = this.#agreement.exclusionsOf(generation);
    const last = this.#last;
    const isSame =
      last !== null &&
      last.index === index &&
      last.view === view &&
      [failed, excluded, last.failed, last.excluded].every(({ length }) => length === 0);
    this.#last = isSame ? last : { type: 'boundary', index, view, joined, failed, excluded };
    return this.#last;
  }

  #tell(generation: Generation): Told {
    const { epoch, members, cuts } = generation;
    const told = this.#told;
    if (told?.of === generation && told.view.epoch === epoch && told.members === members && told.cuts === cuts)
      return told;
    const present = new Set(members);
    const joined = generation.joined.filter((peerId) => present.has(peerId));
    this.#told = { of: generation, members, cuts, view: this.#wireView(generation), joined };
    return this.#told;
  }

  #wireView({ generation, epoch, boundary, members, ring, cuts, costs }: Generation): WireView {
    const places = new Map(ring.map((peerId, place) => [peerId, place]));
    return {
      epoch,
      generation,
      boundary,
      members: members.map((peerId) => ({
        peerId,
        site: this.#roster.siteOf(peerId),
        place: places.get(peerId) ?? 0,
      })),
      cuts: cuts.map(([one, other]) => [one, other]),
      costs,
    };
  }
}
