/**
 * Those who have come in and not shown yet who they are. There is room for so many in all, and for so many of one origin. A newcomer
 * always gets in: when there is no room, whoever has said nothing for longest goes, and of those who have spoken the oldest. So
 * connections that are only opened and held keep nobody out, and one origin makes no room for itself at the cost of others
 * before it has its share.
 */

export interface Visitor {
  /** Where it comes from; null: it is not counted by origin. */
  readonly origin: string | null;
  /** It has to make room; it has left by then. */
  readonly onEvicted: () => void;
}

export interface LobbyLimits {
  readonly total: number;
  readonly perOrigin: number;
}

export class Lobby {
  readonly #limits: LobbyLimits;
  /** Both in the order in which they came. */
  readonly #silent: Set<Visitor> = new Set();
  readonly #heard: Set<Visitor> = new Set();
  readonly #perOrigin: Map<string, number> = new Map();

  constructor(limits: LobbyLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#silent.size + this.#heard.size;
  }

  /** It leaves by `leave`, or is evicted. */
  enter(visitor: Visitor): void {
    const { origin } = visitor;
    if (origin !== null) {
      if ((this.#perOrigin.get(origin) ?? 0) >= this.#limits.perOrigin) this.#evictOne((one) => one.origin === origin);
      this.#perOrigin.set(origin, (this.#perOrigin.get(origin) ?? 0) + 1);
    }
    if (this.size >= this.#limits.total) this.#evictOne(() => true);
    this.#silent.add(visitor);
  }

  /** It has said something. */
  hear(visitor: Visitor): void {
    if (this.#silent.delete(visitor)) this.#heard.add(visitor);
  }

  /** It has shown who it is, or is gone. May be called twice. */
  leave(visitor: Visitor): void {
    if (!this.#silent.delete(visitor) && !this.#heard.delete(visitor)) return;
    const { origin } = visitor;
    if (origin === null) return;
    const others = (this.#perOrigin.get(origin) ?? 0) - 1;
    if (others > 0) this.#perOrigin.set(origin, others);
    else this.#perOrigin.delete(origin);
  }

  #evictOne(mayGo: (visitor: Visitor) => boolean): void {
    for (const visitors of [this.#silent, this.#heard]) {
      for (const oldest of visitors) {
        if (!mayGo(oldest)) continue;
        this.leave(oldest);
        oldest.onEvicted();
        return;
      }
    }
  }
}
