/** What the coordinator tells, as the page keeps it. */
import type { CoordinatorState } from '../eyes/coordinator-state.ts';
import type { RunState } from '../eyes/run-state.ts';
import type { Happening, Second } from '../eyes/timeline.ts';

/** Twice a second, and at once when something happens. */
export interface StateEvent {
  /** Milliseconds since 1970, by the coordinator's clock. */
  readonly at: number;
  readonly coordinator: CoordinatorState | null;
  readonly runs: readonly { readonly run: string; readonly members: number }[];
  readonly run: RunState | null;
  readonly second: Second | null;
}

/** When a run is first shown. */
export interface HistoryEvent {
  readonly run: string | null;
  readonly seconds: readonly Second[];
  readonly happenings: readonly Happening[];
}

/** As many as the coordinator keeps. */
const MAX_SECONDS = 600;
const MAX_HAPPENINGS = 256;

export class Model {
  state: StateEvent | null = null;
  seconds: Second[] = [];
  happenings: Happening[] = [];

  onHistory({ seconds, happenings }: HistoryEvent): void {
    this.seconds = [...seconds];
    this.happenings = [...happenings];
  }

  onHappenings(happenings: readonly Happening[]): void {
    const last = this.happenings.at(-1)?.number ?? 0;
    this.happenings.push(...happenings.filter(({ number }) => number > last));
    this.happenings.splice(0, this.happenings.length - MAX_HAPPENINGS);
  }

  onState(state: StateEvent): void {
    this.state = state;
    const last = this.seconds.at(-1)?.at ?? 0;
    if (state.second !== null && state.second.at > last) this.seconds.push(state.second);
    this.seconds.splice(0, this.seconds.length - MAX_SECONDS);
  }
}
