/** A newcomer waits for its links to come up before it asks to be admitted: a call that has to wait for a link holds up all members. */
import type { Clock } from '../transport/clock.ts';
import { TICK_MS } from './ticking.ts';

/** How long a newcomer waits at least for its links to come up before it asks to be admitted all the same (ms). */
const WARM_MS = 3_000;

/** The same where paths through NATs are sought, and several sessions on each (ms). */
const WARM_WEBRTC_MS = 10_000;

/** Of that for each peer: three round trips of 200 ms, 64 dials at once (ms). */
const WARM_PEER_MS = 10;

/** How long a newcomer waits for links to so many peers. */
export function warmMs(peers: number, leastMs: number = WARM_MS): number {
  return Math.max(leastMs, WARM_PEER_MS * peers);
}

interface Links {
  /** All peers known so far can be reached both ways. */
  readonly allUp: boolean;
  ids(): Iterable<string>;
  /** Resolves when none of them is still being looked for. */
  warmed(): Promise<unknown>;
}

export class Warming {
  #onLinkUp: () => void = () => {};

  /** Waits until all peers known so far can be reached, within reason. */
  async wait(peers: Links, clock: Clock, withWebrtc: boolean): Promise<void> {
    const count = [...peers.ids()].length;
    const deadline = clock.now() + warmMs(count, withWebrtc ? WARM_WEBRTC_MS : WARM_MS);
    void peers.warmed().then(() => this.onLinkUp());
    // One that tells addresses where nobody answers must not keep the others out.
    while (!peers.allUp && clock.now() < deadline) {
      await new Promise<void>((resolve) => {
        this.#onLinkUp = resolve;
        clock.schedule(TICK_MS, resolve);
      });
    }
  }

  onLinkUp(): void {
    this.#onLinkUp();
  }
}
