/** The last minutes of a run, for whoever begins to look on: what happened, and a row of numbers for each second. Bounded. */

export type HappeningKind =
  | 'join'
  | 'loss'
  | 'epoch'
  | 'abort'
  | 'slow'
  | 'cut'
  | 'healed'
  | 'excluded'
  | 'recovering'
  | 'view';

export interface Happening {
  /** Later ones have higher numbers. */
  readonly number: number;
  /** Milliseconds since 1970, by the coordinator's clock. */
  readonly at: number;
  readonly kind: HappeningKind;
  /** Whom it concerns; null: the run. */
  readonly peerId: string | null;
  readonly text: string;
  readonly epoch: number;
}

/** What a second came to. */
export interface Second {
  /** Milliseconds since 1970, at its end. */
  readonly at: number;
  readonly members: number;
  /** Sent by all members together. */
  readonly bytesPerSecond: number;
  /** Collectives that were committed. */
  readonly committed: number;
  /** Of the calls that ended, in seconds; null where none did. */
  readonly p50: number | null;
  readonly p99: number | null;
}

/** How many are kept: ten minutes. */
const MAX_SECONDS = 600;
const MAX_HAPPENINGS = 256;

/** The same is told of the same peer only so often (ms): a program that fails all its calls must not push out all else. */
const REPEAT_MS = 1_000;

/** What repeats by nature. */
const REPEATING: ReadonlySet<HappeningKind> = new Set<HappeningKind>(['abort', 'excluded', 'cut', 'healed']);

export class Timeline {
  readonly #happenings: Happening[] = [];
  readonly #seconds: Second[] = [];
  #next = 1;

  get seconds(): readonly Second[] {
    return this.#seconds;
  }

  get happenings(): readonly Happening[] {
    return this.#happenings;
  }

  /** Of the last one; 0: nothing has happened. */
  get last(): number {
    return this.#next - 1;
  }

  since(number: number): readonly Happening[] {
    return this.#happenings.filter((one) => one.number > number);
  }

  add(happening: Omit<Happening, 'number'>): void {
    const { kind, peerId, at } = happening;
    const isRepeated =
      REPEATING.has(kind) &&
      this.#happenings.some((one) => one.kind === kind && one.peerId === peerId && at - one.at < REPEAT_MS);
    if (isRepeated) return;
    this.#happenings.push({ number: this.#next++, ...happening });
    if (this.#happenings.length > MAX_HAPPENINGS) this.#happenings.shift();
  }

  addSecond(second: Second): void {
    this.#seconds.push(second);
    if (this.#seconds.length > MAX_SECONDS) this.#seconds.shift();
  }
}
