/**
 * Which peers this one can reach: a machine that is shown the links now and then, and says what the coordinator must know.
 *
 *     open ──lanes down for half the bound, or silent for the bound──▶ cut ──both lanes up for a while──▶ open
 *
 * Packets that are dropped in silence close no connection for a quarter of an hour. But a peer that is in a call with this
 * one, gets something from it, or was asked for a sign (`ping`), sends something every heartbeat, by each of the link's connections. Silence of one of them for as long as the detector's bound means
 * that the way is cut, while the peer may well live.
 */

/** How long a way must have been open again before it counts (ms): one that comes and goes is none. */
const OPEN_MS = 1_000;

export interface LinkSight {
  readonly peerId: string;
  /** Frames can be sent and received. */
  readonly up: boolean;
  /** Grows whenever something has come by each of its connections: data may be stuck on one of them. */
  readonly heard: number;
}

interface PathState {
  downSince: number | null;
  upSince: number | null;
  heard: number;
  heardAt: number;
  cut: boolean;
}

export interface PathNews {
  /** To be told to the coordinator. */
  readonly changed: readonly { readonly peerId: string; readonly open: boolean }[];
  /** Links that look open, and on which nothing arrives any more. */
  readonly silent: readonly string[];
}

/** How a way looks (ms). */
export interface PathTrouble {
  readonly silentMs: number;
  readonly downMs: number;
  readonly cut: boolean;
}

export class Paths {
  readonly #boundMs: number;
  readonly #states: Map<string, PathState> = new Map();

  constructor(boundMs: number) {
    this.#boundMs = boundMs;
  }

  /** Peers that can't be reached. */
  get cuts(): readonly string[] {
    return [...this.#states].filter(([, state]) => state.cut).map(([peerId]) => peerId);
  }

  /**
   * @param links all there are; what is not among them is forgotten
   * @param awaited peers of which something should arrive every heartbeat
   * @param asleep this process itself stood still, so silence proves nothing
   */
  look(now: number, links: readonly LinkSight[], awaited: ReadonlySet<string>, asleep: boolean): PathNews {
    const changed: { peerId: string; open: boolean }[] = [];
    const silent: string[] = [];
    for (const { peerId, up, heard } of links) {
      const state = this.#state(peerId, now, heard);
      if (asleep || !awaited.has(peerId) || !up || heard !== state.heard) state.heardAt = now;
      state.heard = heard;
      if (up) {
        state.downSince = null;
        state.upSince ??= now;
      } else {
        state.upSince = null;
        if (asleep) state.downSince = null;
        state.downSince ??= now;
      }
      const isSilent = now - state.heardAt >= this.#boundMs;
      if (isSilent) silent.push(peerId);
      const isDown = state.downSince !== null && now - state.downSince >= this.#boundMs / 2;
      if (!state.cut && (isSilent || isDown)) {
        state.cut = true;
        changed.push({ peerId, open: false });
      } else if (state.cut && state.upSince !== null && now - state.upSince >= OPEN_MS) {
        state.cut = false;
        changed.push({ peerId, open: true });
      }
    }
    if (this.#states.size > links.length) this.#forgetAllBut(new Set(links.map((link) => link.peerId)));
    return { changed, silent };
  }

  /** How long nothing has come from a peer that should have, and how long a lane has been down (ms); null: it is not watched. */
  of(peerId: string, now: number): PathTrouble | null {
    const state = this.#states.get(peerId);
    if (state === undefined) return null;
    const { heardAt, downSince, cut } = state;
    return { silentMs: now - heardAt, downMs: downSince === null ? 0 : now - downSince, cut };
  }

  #forgetAllBut(known: ReadonlySet<string>): void {
    for (const peerId of this.#states.keys()) if (!known.has(peerId)) this.#states.delete(peerId);
  }

  #state(peerId: string, now: number, heard: number): PathState {
    let state = this.#states.get(peerId);
    if (state === undefined) {
      state = { downSince: null, upSince: null, heard, heardAt: now, cut: false };
      this.#states.set(peerId, state);
    }
    return state;
  }
}
