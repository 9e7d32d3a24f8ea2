/**
 * Gives the lanes that we dial to one peer as many stripes as their way needs (`transport/stripes.ts`), while they are in use: frames go
 * on by those that are there. Whoever dials a lane sees how fast it carries, whether it reads from it or writes, so nobody need be asked.
 */
import type { LaneName, Link } from '../transport/link.ts';
import { SustainedRate, stripesFor } from '../transport/stripes.ts';
import type { Connection } from '../transport/transport.ts';

/** How long a lane is left as it is when more of it could not be dialled (ms). */
const PATIENCE_MS = 10_000;

type Dial = (lane: LaneName, session: number) => Promise<Connection>;

interface Width {
  session: number | null;
  rate: SustainedRate;
  /** What the way was found to need: a lane that is dialled anew has that many at once. */
  stripes: number;
  isDialling: boolean;
  notBefore: number;
}

export class Widening {
  readonly #link: Link;
  readonly #dial: Dial;
  readonly #widths: Readonly<Record<LaneName, Width>>;

  /**
   * @param stripes of a lane of which nothing is known
   * @param dial opens one more stripe of a lane that we have dialled
   */
  constructor(link: Link, stripes: number, dial: Dial) {
    this.#link = link;
    this.#dial = dial;
    this.#widths = { inbound: widthOf(stripes), outbound: widthOf(stripes) };
  }

  /** How many a lane is to have that is dialled now. */
  stripes(lane: LaneName): number {
    return this.#widths[lane].stripes;
  }

  /** To be called every few dozen milliseconds. */
  look(now: number): void {
    this.#lookAt('inbound', now);
    this.#lookAt('outbound', now);
  }

  #lookAt(name: LaneName, now: number): void {
    const width = this.#widths[name];
    const lane = this.#link.dialledLane(name);
    if (lane === null || lane.roundTripMs === null) return;
    if (width.session !== lane.session) {
      width.session = lane.session;
      width.rate = new SustainedRate();
    }
    width.rate.look(now, lane.bytes);
    const wanted = stripesFor(width.rate.best, lane.roundTripMs, lane.stripes);
    if (wanted === lane.stripes || width.isDialling || now < width.notBefore) return;
    width.isDialling = true;
    const dials = Array.from({ length: wanted - lane.stripes }, () =>
      this.#link.addStripe(name, lane.session, () => this.#dial(name, lane.session)),
    );
    void Promise.allSettled(dials).then((ends) => {
      width.isDialling = false;
      if (ends.some(({ status }) => status === 'rejected')) width.notBefore = now + PATIENCE_MS;
      else width.stripes = Math.max(width.stripes, wanted);
    });
  }
}

function widthOf(stripes: number): Width {
  return { session: null, rate: new SustainedRate(), stripes, isDialling: false, notBefore: Number.NEGATIVE_INFINITY };
}
