/**
 * What one seed means: peers, weather, a workload and a list of faults. Plain data, so that a failing run can be shrunk by
 * leaving parts of it out.
 */
import type { Weather } from '../../src/transport/memory.ts';
import { mix, Random } from './random.ts';
import { drawState, type StatePlan } from './state.ts';

/** A machine, numbered from 0. What runs on it may die and be started again. */
type Machine = number;

/**
 * `clean`: two halves, and the coordinator in one of them. `partial`: all reach the coordinator. `asymmetric`: side A is not
 * heard, but hears. `bridge`: one machine reaches both sides.
 */
type PartitionShape = 'clean' | 'partial' | 'asymmetric' | 'bridge';

type Fault =
  /** SIGKILL; `silent`: the machine goes with it. `restartMs`: null for never. */
  | { readonly kind: 'crash'; readonly machine: Machine; readonly silent: boolean; readonly restartMs: number | null }
  | { readonly kind: 'stop'; readonly machine: Machine; readonly forMs: number }
  /** All that the process does takes longer: each message and each timer costs so much time, one after the other. */
  | { readonly kind: 'sluggish'; readonly machine: Machine; readonly costMs: number; readonly forMs: number }
  /** Machines on side A (and the coordinator, if it is) can't reach those on the other side. */
  | {
      readonly kind: 'partition';
      readonly shape: PartitionShape;
      readonly sideA: readonly Machine[];
      readonly coordinatorOnA: boolean;
      /** The machine that sees both sides of a bridge. */
      readonly bridge: Machine;
      readonly forMs: number;
    }
  /** Two machines can't reach one another; all others can. */
  | { readonly kind: 'block'; readonly one: Machine; readonly other: Machine; readonly forMs: number }
  /** Connections are reset. `midFrame`: each when it has sent part of a frame, and not before. */
  | { readonly kind: 'cut'; readonly one: Machine; readonly other: Machine; readonly midFrame?: boolean }
  | { readonly kind: 'cut-control'; readonly machine: Machine }
  /** Links are slow: all of a machine or the one to `peer`; what it sends, what it receives, or both. */
  | {
      readonly kind: 'slow';
      readonly machine: Machine;
      readonly peer: Machine | null;
      readonly direction: 'sends' | 'receives' | 'both';
      readonly weather: Partial<Weather>;
      readonly forMs: number;
    }
  | { readonly kind: 'jump'; readonly machine: Machine; readonly byMs: number }
  | { readonly kind: 'join'; readonly count: number }
  | { readonly kind: 'leave'; readonly machine: Machine }
  /** Many come and go at once; who has left joins again. */
  | { readonly kind: 'churn'; readonly joins: number; readonly leaves: readonly Machine[] }
  /** The user cancels what is open. */
  | { readonly kind: 'cancel'; readonly machine: Machine }
  /** The user's next call has the wrong shape. */
  | { readonly kind: 'wrong'; readonly machine: Machine }
  /** The user's next call comes late. */
  | { readonly kind: 'late'; readonly machine: Machine; readonly byMs: number }
  | { readonly kind: 'coordinator-stop'; readonly forMs: number }
  | { readonly kind: 'coordinator-crash'; readonly restartMs: number; readonly keepsStore: boolean };

export type FaultKind = Fault['kind'];

export type TimedFault = Fault & { readonly at: number };

export interface Scenario {
  readonly seed: number;
  readonly machines: number;
  readonly minWorldSize: number;
  readonly stripes: number;
  readonly segmentBytes: number;
  readonly heartbeatMs: number;
  readonly lostAfterMs: number;
  readonly callTimeoutMs: number;
  /** Steps whose calls may still be open when the next boundary is passed. */
  readonly ahead: number;
  readonly weather: Partial<Weather>;
  /** How long faults go on; then the weather clears, and everything must work again. */
  readonly stormMs: number;
  readonly faults: readonly TimedFault[];
  /** All-reduces are streams, whose inputs come in parts. Never drawn: said of scenarios that were. */
  readonly streams?: boolean;
  /** A state that all share. */
  readonly state?: StatePlan;
}

type Make = (random: Random, machines: number) => Fault;

const DURATIONS_MS = [30, 150, 500, 1_200, 3_000];

/** The last is longer than any detector's bound. */
const LATE_MS = [30, 150, 500, 1_200, 3_500, 7_000, 7_000];

const SHAPES: readonly PartitionShape[] = ['clean', 'partial', 'asymmetric', 'bridge'];

function some(random: Random, machines: number): readonly Machine[] {
  return Array.from({ length: machines }, (_, machine) => machine).filter(() => random.chance(0.5));
}

const MAKERS: Readonly<Record<FaultKind, Make>> = {
  crash: (random, machines) => ({
    kind: 'crash',
    machine: random.integer(0, machines - 1),
    silent: random.chance(0.3),
    restartMs: random.chance(0.8) ? random.integer(1, 1_500) : null,
  }),
  stop: (random, machines) => ({
    kind: 'stop',
    machine: random.integer(0, machines - 1),
    forMs: random.pick(DURATIONS_MS),
  }),
  sluggish: (random, machines) => ({
    kind: 'sluggish',
    machine: random.integer(0, machines - 1),
    costMs: random.pick([0.5, 2, 5]),
    forMs: random.pick(DURATIONS_MS),
  }),
  partition: (random, machines) => ({
    kind: 'partition',
    shape: random.pick(SHAPES),
    sideA: some(random, machines),
    coordinatorOnA: random.chance(0.5),
    bridge: random.integer(0, machines - 1),
    forMs: random.pick(DURATIONS_MS),
  }),
  block: (random, machines) => ({
    kind: 'block',
    one: random.integer(0, machines - 1),
    other: random.integer(0, machines - 1),
    forMs: random.pick(DURATIONS_MS),
  }),
  cut: (random, machines) => ({
    kind: 'cut',
    one: random.integer(0, machines - 1),
    other: random.integer(0, machines - 1),
    midFrame: random.chance(0.5),
  }),
  'cut-control': (random, machines) => ({ kind: 'cut-control', machine: random.integer(0, machines - 1) }),
  slow: (random, machines) => ({
    kind: 'slow',
    machine: random.integer(0, machines - 1),
    peer: random.chance(0.5) ? random.integer(0, machines - 1) : null,
    direction: random.pick(['sends', 'receives', 'both']),
    weather: { latencyMs: random.integer(1, 80), bytesPerMs: random.pick([100, 500, 2_000]) },
    forMs: random.pick(DURATIONS_MS),
  }),
  jump: (random, machines) => ({
    kind: 'jump',
    machine: random.integer(0, machines - 1),
    byMs: random.integer(100, 8_000),
  }),
  join: (random) => ({ kind: 'join', count: random.integer(1, 3) }),
  leave: (random, machines) => ({ kind: 'leave', machine: random.integer(0, machines - 1) }),
  churn: (random, machines) => ({ kind: 'churn', joins: random.integer(1, 3), leaves: some(random, machines) }),
  cancel: (random, machines) => ({ kind: 'cancel', machine: random.integer(0, machines - 1) }),
  wrong: (random, machines) => ({ kind: 'wrong', machine: random.integer(0, machines - 1) }),
  late: (random, machines) => ({
    kind: 'late',
    machine: random.integer(0, machines - 1),
    byMs: random.pick(LATE_MS),
  }),
  'coordinator-stop': (random) => ({ kind: 'coordinator-stop', forMs: random.pick(DURATIONS_MS) }),
  'coordinator-crash': (random) => ({
    kind: 'coordinator-crash',
    restartMs: random.integer(1, 1_500),
    keepsStore: random.chance(0.5),
  }),
};

export const FAULT_KINDS: readonly FaultKind[] = Object.keys(MAKERS) as FaultKind[]; // keys of a Record<FaultKind, …>

/** Users who wait so long find everything working again: none of their calls may run out of time. */
export const PATIENT_MS = 25_000;

/** Swarm testing (A. Groce et al., "Swarm Testing", 2012): each seed has a random subset of the kinds of fault. */
export function drawScenario(seed: number, allowed: readonly FaultKind[] = FAULT_KINDS): Scenario {
  const random = new Random(seed);
  const machines = random.pick([1, 2, 2, 3, 3, 3, 4, 4, 5, 6]);
  const kinds = allowed.filter(() => random.chance(0.35));
  const stormMs = random.integer(300, 1_700);
  const count = kinds.length === 0 ? 0 : random.integer(1, 8);
  const minWorldSize = random.chance(0.7) ? 1 : random.integer(1, machines);
  const patience = random.pick([600, 1_500, 4_000, PATIENT_MS, PATIENT_MS]);
  const lossless = random.chance(0.8);
  const faults = Array.from({ length: count }, () => ({
    at: random.integer(0, stormMs),
    ...MAKERS[random.pick(kinds)](random, machines),
  }));
  const scenario: Scenario = {
    seed,
    machines,
    minWorldSize,
    stripes: random.integer(1, 3),
    segmentBytes: random.pick([4_096, 16_384]),
    heartbeatMs: 100,
    lostAfterMs: random.pick([300, 700]),
    // Where a quorum is wanted, waiting for it may be in vain.
    callTimeoutMs: minWorldSize > 1 ? Math.min(patience, 4_000) : patience,
    ahead: [0, 0, 0, 0, 0, 0, 1, 3][mix(seed, 77) % 8]!,
    weather: {
      latencyMs: random.pick([0, 0.2, 2, 15]),
      jitterMs: random.pick([0, 0.5, 10]),
      bytesPerMs: random.pick([1_000_000, 10_000, 1_000]),
      maxPieceBytes: random.pick([100_000, 20_000, 3_000]),
      windowBytes: random.pick([256 * 1024, 16 * 1024]),
      cutChance: lossless ? 0 : 0.002,
    },
    stormMs,
    faults: faults.sort((left, right) => left.at - right.at),
  };
  const state = drawState(seed, speedOf(scenario.weather));
  return state === null ? scenario : { ...scenario, state };
}

/** What a connection moves: a window for each round trip at most (bytes per ms). */
function speedOf({ latencyMs = 0, jitterMs = 0, bytesPerMs = 0, windowBytes = 0 }: Partial<Weather>): number {
  return Math.min(bytesPerMs, windowBytes / (latencyMs + jitterMs + 0.1));
}
