/** A peer's flight record as it is handed out: within its limit, and to a file at most about once a second. */
import type { Clock } from '../transport/clock.ts';
import type { FlightDump } from '../wire/flight.ts';
import { MAX_FLIGHT_BYTES } from '../wire/limits.ts';

/** A folder for flight records; only Node has one. */
export interface FlightFolder {
  /** Puts a file in the place of the last one of that name, so that whoever looks finds the one or the other. Where it can't, it warns. */
  write(name: string, text: string): Promise<void>;
  close(): void;
}

/** Between files (ms): in a run that falls apart thousands of calls may fail at once. */
const BETWEEN_MS = 500;

/** As JSON, without the oldest calls that have ended if it would be too long with them. */
export function encodeFlight(dump: FlightDump): Uint8Array {
  const encoder = new TextEncoder();
  let { calls, next } = dump;
  for (;;) {
    const bytes = encoder.encode(JSON.stringify({ ...dump, calls, next }));
    if (bytes.length <= MAX_FLIGHT_BYTES) return bytes;
    const ended = calls.filter(({ endedAt }) => endedAt !== null);
    // Half of them at a time; when all are gone, of the open ones, and at last of the tags.
    const excess = new Set((ended.length > 0 ? ended : calls).slice(0, Math.ceil((ended.length || calls.length) / 2)));
    if (calls.length > 0) calls = calls.filter((call) => !excess.has(call));
    else if (next.length > 0) next = next.slice(Math.ceil(next.length / 2));
    else return encoder.encode(JSON.stringify({ ...dump, calls, next, links: [] }));
  }
}

/** A name that is one on every file system. */
export function flightFileName(run: string, peerId: string): string {
  return `${`${run}-${peerId}`.replace(/[^\w.-]/g, '_').slice(0, 200)}.json`;
}

export class FlightFiles {
  readonly #clock: Clock;
  readonly #folder: FlightFolder;
  readonly #make: (reason: string) => FlightDump;
  #wanted: string | null = null;
  /** The one that is being written, and the pause after it. */
  #writing: Promise<void> = Promise.resolve();
  #isBusy = false;
  #stopTimer: () => void = () => {};

  constructor(clock: Clock, folder: FlightFolder, make: (reason: string) => FlightDump) {
    this.#clock = clock;
    this.#folder = folder;
    this.#make = make;
  }

  /** Writes the record, now or in a moment; of several reasons the last is told. */
  write(reason: string): void {
    this.#wanted = reason;
    if (!this.#isBusy) this.#next();
  }

  #next(): void {
    const reason = this.#wanted;
    this.#isBusy = reason !== null;
    if (reason === null) return;
    this.#wanted = null;
    this.#stopTimer = this.#clock.schedule(BETWEEN_MS, () => void this.#writing.then(() => this.#next()));
    const dump = this.#make(reason);
    this.#writing = this.#folder.write(flightFileName(dump.run, dump.peerId), JSON.stringify(dump));
  }

  /** Writes what was asked for and was not written yet. */
  async close(): Promise<void> {
    this.#stopTimer();
    await this.#writing;
    this.#next();
    this.#stopTimer();
    await this.#writing;
    this.#folder.close();
  }
}
