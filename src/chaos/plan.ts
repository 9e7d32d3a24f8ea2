/** Which faults a run of chaos gets, and when: a pure function of its seed. */
import { xorshift128plus } from 'pure-rand/generator/xorshift128plus';

export const FAULT_KINDS = ['kill', 'stop', 'coordinator', 'partition', 'slow', 'loss'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Faults that need a network of the peers' own. */
export const NETWORK_FAULTS: ReadonlySet<FaultKind> = new Set(['partition', 'slow', 'loss']);

/**
 * `moment`: what must happen on some peer before the fault is inflicted. Races hide where a view has just been formed or a
 * collective has just ended, and random times hardly ever hit them.
 */
export type Moment = 'now' | 'view' | 'settled';

export type Fault =
  /** SIGKILL; it is started again. */
  | { readonly kind: 'kill'; readonly victim: number }
  /** SIGSTOP, then SIGCONT. */
  | { readonly kind: 'stop'; readonly victim: number; readonly forMs: number }
  /** SIGKILL of the coordinator, which is started again at its address. */
  | { readonly kind: 'coordinator'; readonly forMs: number }
  /** The victim can't reach these others (`hub`: the coordinator). */
  | {
      readonly kind: 'partition';
      readonly victim: number;
      readonly others: readonly (number | 'hub')[];
      readonly forMs: number;
    }
  | { readonly kind: 'slow'; readonly victim: number; readonly megabits: number; readonly forMs: number }
  | { readonly kind: 'loss'; readonly victim: number; readonly percent: number; readonly forMs: number };

export type PlannedFault = Fault & {
  /** Milliseconds from the beginning. */
  readonly at: number;
  readonly moment: Moment;
};

export interface PlanRequest {
  readonly seed: number;
  readonly kinds: readonly FaultKind[];
  readonly peers: number;
  /** Milliseconds in which faults come. */
  readonly forMs: number;
  /** Milliseconds from one to the next, on average. */
  readonly everyMs: number;
}

/** Shorter and longer than the detector's bound of 3 s. */
const DURATIONS_MS = [300, 1_500, 5_000];

class Draw {
  readonly #generator: ReturnType<typeof xorshift128plus>;

  constructor(seed: number) {
    this.#generator = xorshift128plus(seed);
  }

  /** Uniform in [0, 1). */
  next(): number {
    return (this.#generator.next() >>> 0) / 2 ** 32;
  }

  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}

export function planFaults({ seed, kinds, peers, forMs, everyMs }: PlanRequest): readonly PlannedFault[] {
  const draw = new Draw(seed);
  const faults: PlannedFault[] = [];
  for (let at = everyMs * (0.5 + draw.next()); at < forMs; at += everyMs * (0.5 + draw.next())) {
    const moment = draw.pick<Moment>(['now', 'now', 'view', 'settled', 'settled']);
    faults.push({ ...drawFault(draw.pick(kinds), draw, peers), at: Math.round(at), moment });
  }
  return faults;
}

function drawFault(kind: FaultKind, draw: Draw, peers: number): Fault {
  const victim = draw.below(peers);
  const forMs = draw.pick(DURATIONS_MS);
  switch (kind) {
    case 'kill':
      return { kind, victim };
    case 'stop':
      return { kind, victim, forMs };
    case 'coordinator':
      return { kind, forMs: draw.pick([100, 700, 2_500]) };
    case 'partition': {
      const indices = Array.from({ length: peers }, (_, index) => index).filter((index) => index !== victim);
      const shape = draw.pick(['one', 'some', 'all'] as const);
      if (shape === 'one') return { kind, victim, others: indices.length > 0 ? [draw.pick(indices)] : ['hub'], forMs };
      if (shape === 'some') return { kind, victim, others: indices.filter(() => draw.next() < 0.5), forMs };
      return { kind, victim, others: [...indices, 'hub'], forMs };
    }
    case 'slow':
      return { kind, victim, megabits: draw.pick([5, 50, 200]), forMs };
    case 'loss':
      return { kind, victim, percent: draw.pick([1, 5, 20]), forMs };
    default:
      return kind satisfies never;
  }
}

/** In words, for logs and reports. */
export function describeFault(fault: Fault): string {
  switch (fault.kind) {
    case 'kill':
      return `SIGKILL of peer ${fault.victim}`;
    case 'stop':
      return `SIGSTOP of peer ${fault.victim} for ${fault.forMs} ms`;
    case 'coordinator':
      return `SIGKILL of the coordinator, back after ${fault.forMs} ms`;
    case 'partition': {
      const others = fault.others.map((one) => (one === 'hub' ? 'the coordinator' : one)).join(', ');
      return `peer ${fault.victim} can't reach ${others === '' ? 'nobody in particular' : others} for ${fault.forMs} ms`;
    }
    case 'slow':
      return `peer ${fault.victim} at ${fault.megabits} Mbit/s for ${fault.forMs} ms`;
    case 'loss':
      return `${fault.percent} % of the packets to peer ${fault.victim} are lost for ${fault.forMs} ms`;
    default:
      return fault satisfies never;
  }
}
