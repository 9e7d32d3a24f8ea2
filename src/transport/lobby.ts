/**
 * Those who have come in and not shown yet who they are. There is room for so many in all, and for so many of one address.
 * A newcomer always gets in while its own address has room: when all places are taken, whoever has said nothing for longest goes,
 * so that connections which are only opened and held keep nobody out.
 */

export interface Visitor {
  /** Where it comes from; null: it is not counted by address. */
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

  /** Whether there is room for it. It leaves by `leave`, or is evicted. */
  enter(visitor: Visitor): boolean {
    const { origin } = visitor;
    if (origin !== null) {
      const others = this.#perOrigin.get(origin) ?? 0;
      if (others >= this.#limits.perOrigin) return false;
      this.#perOrigin.set(origin, others + 1);
    }
    if (this.size >= this.#limits.total) this.#evictOne();
    this.#silent.add(visitor);
    return true;
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

  #evictOne(): void {
    for (const visitors of [this.#silent, this.#heard]) {
      for (const oldest of visitors) {
        this.leave(oldest);
        oldest.onEvicted();
        return;
      }
    }
  }
}
