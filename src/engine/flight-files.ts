/** A peer's flight record in a file, written at most about twice a second. */
import type { Clock } from '../transport/clock.ts';
import type { FlightDump } from '../wire/flight.ts';

/** A folder for flight records; only Node has one. */
export interface FlightFolder {
  /** Puts a file in the place of the last one of that name, so that whoever looks finds the one or the other. Where it can't, it warns. */
  write(name: string, text: string): Promise<void>;
  close(): void;
}

/** Between files (ms): in a run that falls apart thousands of calls may fail at once. */
const BETWEEN_MS = 500;

/** A name that is one on every file system. */
function flightFileName(run: string, peerId: string): string {
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
