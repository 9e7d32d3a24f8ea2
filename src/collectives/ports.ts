/** The ways by which an attempt sends: straight to a peer, or through those who relay round a cut. */
import { HEADER_BYTES } from '../wire/frame.ts';
import { EAGER_BYTES, MAX_UNEXPECTED_BYTES, RELAY_WINDOW_BYTES } from '../wire/limits.ts';
import type { PeerId } from './call.ts';
import type { Context } from './context.ts';
import type { AttemptPort } from './operation.ts';
import { Envelope, type Path } from './relay.ts';
import { routeAround } from './routes.ts';
import type { Surroundings } from './surroundings.ts';

/** The way to one peer, across reconnections. */
export interface LinkPort {
  /** Frames can be sent now (they may have to queue). */
  readonly up: boolean;
  readonly writable: boolean;
  readonly queuedBytes: number;
  /** Frames sent from `cork` to `uncork` leave together. */
  cork(): void;
  uncork(): void;
  /** `ordered`: by the link's first stripe, after everything sent so before. */
  send(head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null, ordered: boolean): void;
}

type Links = Pick<Surroundings, 'self' | 'link'>;

export class Ports {
  readonly #around: Links;
  /** By peer: bytes sent before it announced the calls that they belong to. */
  readonly #charges: Map<PeerId, number> = new Map();

  constructor(around: Links) {
    this.#around = around;
  }

  /** Small calls send at once, as long as the peer can't be made to keep more than a bounded amount. */
  open(context: Context, peerId: PeerId, bytes: number): AttemptPort {
    const charged = this.#charges.get(peerId) ?? 0;
    const charge = bytes + HEADER_BYTES;
    const eager = bytes <= EAGER_BYTES && charged + charge <= MAX_UNEXPECTED_BYTES / 2;
    if (eager) this.#charges.set(peerId, charged + charge);
    const { self } = this.#around;
    const ids = () => context.members.map((member) => member.peerId);
    const route = context.cuts.has(self, peerId) ? routeAround(ids(), context.cuts, self, peerId) : null;
    return route === null ? this.#direct(peerId, eager, charge) : this.#relayed(route, eager, charge);
  }

  /** The peer has made the same call, or the attempt is over. */
  uncharge(peerId: PeerId, port: AttemptPort): void {
    if (port.charge === 0) return;
    const left = (this.#charges.get(peerId) ?? 0) - port.charge;
    if (left > 0) this.#charges.set(peerId, left);
    else this.#charges.delete(peerId);
    port.charge = 0;
  }

  #direct(peerId: PeerId, eager: boolean, charge: number): AttemptPort {
    const link = this.#around.link(peerId);
    return {
      via: peerId,
      allowed: eager,
      charge: eager ? charge : 0,
      get writable(): boolean {
        return this.allowed && link.writable;
      },
      announce(frame): void {
        if (link.up) link.send(frame, null, null, true);
      },
      send(head, body, onFlushed): void {
        link.send(head, body, onFlushed, this.charge > 0);
      },
      credit: null,
    };
  }

  /** The way to a peer that can't be reached: through those on the route. */
  #relayed(route: Path, eager: boolean, charge: number): AttemptPort {
    const via = route[1]!; // a route round a cut has at least three members
    const link = this.#around.link(via);
    const envelope = new Envelope(route);
    let onTheWay = 0;
    return {
      via,
      allowed: eager,
      charge: eager ? charge : 0,
      get writable(): boolean {
        return this.allowed && onTheWay < RELAY_WINDOW_BYTES && link.writable;
      },
      announce(frame): void {
        if (link.up) link.send(envelope.wrap(frame, 0), null, null, true);
      },
      send(head, body, onFlushed): void {
        onTheWay += head.length + (body?.length ?? 0);
        link.send(envelope.wrap(head, body?.length ?? 0), body, onFlushed, this.charge > 0);
      },
      credit: (bytes) => {
        onTheWay = Math.max(0, onTheWay - bytes);
      },
    };
  }
}
