/** Which faults a run of chaos gets, and when: a pure function of its seed. */
import { Draw } from './draw.ts';
import type { Disturbance } from './packets.ts';

export const FAULT_KINDS = [
  'kill',
  'restart',
  'stop',
  'coordinator',
  'partition',
  'slow',
  'loss',
  'delay',
  'reorder',
  'corrupt',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Faults for which packets go through the relay. */
export const RELAY_FAULTS: ReadonlySet<FaultKind> = new Set(['delay', 'reorder', 'corrupt']);

/** Faults that need a network of the peers' own. */
export const NETWORK_FAULTS: ReadonlySet<FaultKind> = new Set(['partition', 'slow', 'loss', ...RELAY_FAULTS]);

/**
 * What must happen on some peer before the fault is inflicted: a collective begins or ends, or, soon after the fault before it,
 * others notice the loss (`recovery`), a view is formed, or members come back to the coordinator. Races hide there, and
 * random times (`now`) hardly ever hit them.
 */
export type Moment = 'now' | 'begun' | 'settled' | 'recovery' | 'view' | 'coordinator-back';

export const MOMENTS: readonly Moment[] = ['now', 'begun', 'settled', 'recovery', 'view', 'coordinator-back'];

export type Fault =
  /** SIGKILL; it is started again. */
  | { readonly kind: 'kill'; readonly victim: number }
  /** SIGTERM, so that it may leave in good order; it is started again. */
  | { readonly kind: 'restart'; readonly victim: number }
  /** SIGSTOP, then SIGCONT. */
  | { readonly kind: 'stop'; readonly victim: number; readonly forMs: number }
  /** SIGKILL of the coordinator, which is started again at its address. */
  | { readonly kind: 'coordinator'; readonly forMs: number }
  /** The victim can't reach these others. */
  | {
      readonly kind: 'partition';
      readonly victim: number;
      readonly others: readonly (number | 'coordinator')[];
      readonly forMs: number;
    }
  | { readonly kind: 'slow'; readonly victim: number; readonly megabits: number; readonly forMs: number }
  | { readonly kind: 'loss'; readonly victim: number; readonly percent: number; readonly forMs: number }
  /** All packets from and to the victim are late, each by so much more or less; they keep their order. */
  | {
      readonly kind: 'delay';
      readonly victim: number;
      readonly delayMs: number;
      readonly jitterMs: number;
      readonly forMs: number;
    }
  /** So many of a hundred packets overtake the others, which are late by so much. */
  | {
      readonly kind: 'reorder';
      readonly victim: number;
      readonly percent: number;
      readonly delayMs: number;
      readonly forMs: number;
    }
  | { readonly kind: 'corrupt'; readonly victim: number; readonly percent: number; readonly forMs: number };

export type PlannedFault = Fault & {
  /** Milliseconds from the beginning. */
  readonly at: number;
  readonly moment: Moment;
};

/** A fault, and when it began and ended (ms since 1970). */
export interface Inflicted {
  readonly fault: PlannedFault;
  /** Whether it came at the moment that it waited for; otherwise at a random time. */
  readonly hit: boolean;
  readonly at: number;
  readonly until: number;
}

export interface PlanRequest {
  readonly seed: number;
  readonly kinds: readonly FaultKind[];
  readonly peers: number;
  /** Milliseconds in which faults come. */
  readonly forMs: number;
  /** Milliseconds from one to the next, on average. */
  readonly everyMs: number;
}

/** Share of the faults that come upon the one before it, while the others still recover, if there is anything to recover from. */
const FOLLOWING_SHARE = 0.5;

/** The detector's bound (ms): who is silent for longer is lost. */
export const LOST_AFTER_MS = 3_000;

/** Shorter and longer than the detector's bound of 3 s. */
const DURATIONS_MS = [300, 1_500, 5_000];

export function planFaults({ seed, kinds, peers, forMs, everyMs }: PlanRequest): readonly PlannedFault[] {
  const draw = new Draw(seed);
  const faults: PlannedFault[] = [];
  for (let at = everyMs * (0.5 + draw.next()); at < forMs; at += everyMs * (0.5 + draw.next())) {
    const fault = drawFault(draw.pick(kinds), draw, peers);
    const before = faults.at(-1);
    const moments = before === undefined ? [] : momentsAfter(before);
    if (before !== undefined && moments.length > 0 && draw.next() < FOLLOWING_SHARE)
      faults.push({ ...fault, at: before.at, moment: draw.pick(moments) });
    else faults.push({ ...fault, at: Math.round(at), moment: draw.pick<Moment>(['now', 'now', 'begun', 'settled']) });
  }
  return faults;
}

/** Moments that come of a fault; none where nobody need be lost. */
function momentsAfter(fault: Fault): readonly Moment[] {
  switch (fault.kind) {
    case 'kill':
      return ['recovery', 'view'];
    case 'restart':
      return ['view'];
    case 'coordinator':
      return ['recovery', 'coordinator-back'];
    case 'stop':
    case 'partition':
      return fault.forMs > LOST_AFTER_MS ? ['recovery', 'view'] : [];
    case 'slow':
    case 'loss':
    case 'delay':
    case 'reorder':
    case 'corrupt':
      return [];
    default:
      return fault satisfies never;
  }
}

function drawFault(kind: FaultKind, draw: Draw, peers: number): Fault {
  const victim = draw.below(peers);
  const forMs = draw.pick(DURATIONS_MS);
  switch (kind) {
    case 'kill':
    case 'restart':
      return { kind, victim };
    case 'stop':
      return { kind, victim, forMs };
    case 'coordinator':
      return { kind, forMs: draw.pick([100, 700, 2_500]) };
    case 'partition': {
      const indices = Array.from({ length: peers }, (_, index) => index).filter((index) => index !== victim);
      const shape = draw.pick(['one', 'some', 'all'] as const);
      if (shape === 'one')
        return { kind, victim, others: indices.length > 0 ? [draw.pick(indices)] : ['coordinator'], forMs };
      if (shape === 'some') return { kind, victim, others: indices.filter(() => draw.next() < 0.5), forMs };
      return { kind, victim, others: [...indices, 'coordinator'], forMs };
    }
    case 'slow':
      return { kind, victim, megabits: draw.pick([5, 50, 200]), forMs };
    case 'loss':
      return { kind, victim, percent: draw.pick([1, 5, 20]), forMs };
    case 'delay': {
      const delayMs = draw.pick([5, 30, 100]);
      return { kind, victim, delayMs, jitterMs: draw.pick([0, delayMs / 2]), forMs };
    }
    case 'reorder':
      return { kind, victim, percent: draw.pick([1, 10, 50]), delayMs: draw.pick([2, 10]), forMs };
    case 'corrupt':
      return { kind, victim, percent: draw.pick([0.1, 1, 5]), forMs };
    default:
      return kind satisfies never;
  }
}

/** In words, for logs and reports. */
export function describeFault(fault: Fault): string {
  switch (fault.kind) {
    case 'kill':
      return `SIGKILL of peer ${fault.victim}`;
    case 'restart':
      return `SIGTERM of peer ${fault.victim}, which is started again`;
    case 'stop':
      return `SIGSTOP of peer ${fault.victim} for ${fault.forMs} ms`;
    case 'coordinator':
      return `SIGKILL of the coordinator, back after ${fault.forMs} ms`;
    case 'partition': {
      const others = fault.others.map((one) => (one === 'coordinator' ? 'the coordinator' : one)).join(', ');
      return `peer ${fault.victim} can't reach ${others === '' ? 'nobody in particular' : others} for ${fault.forMs} ms`;
    }
    case 'slow':
      return `peer ${fault.victim} at ${fault.megabits} Mbit/s for ${fault.forMs} ms`;
    case 'loss':
      return `${fault.percent} % of the packets to peer ${fault.victim} are lost for ${fault.forMs} ms`;
    case 'delay': {
      const { victim, delayMs, jitterMs, forMs } = fault;
      const by = jitterMs === 0 ? `${delayMs} ms` : `${delayMs} ± ${jitterMs} ms`;
      return `packets from and to peer ${victim} are late by ${by} for ${forMs} ms`;
    }
    case 'reorder': {
      const { victim, percent, delayMs, forMs } = fault;
      return `${percent} % of the packets from and to peer ${victim} overtake others by ${delayMs} ms for ${forMs} ms`;
    }
    case 'corrupt':
      return `${fault.percent} % of the packets from and to peer ${fault.victim} are damaged for ${fault.forMs} ms`;
    default:
      return fault satisfies never;
  }
}

/** What the relay does to the victim's packets while these last. */
export function disturbanceOf(faults: readonly Fault[]): Disturbance | null {
  let [delayMs, jitterMs, overtakePercent, corruptPercent] = [0, 0, 0, 0];
  let isAny = false;
  for (const fault of faults) {
    if (fault.kind === 'delay') {
      delayMs += fault.delayMs;
      jitterMs += fault.jitterMs;
    } else if (fault.kind === 'reorder') {
      delayMs += fault.delayMs;
      overtakePercent = Math.max(overtakePercent, fault.percent);
    } else if (fault.kind === 'corrupt') corruptPercent = Math.max(corruptPercent, fault.percent);
    else continue;
    isAny = true;
  }
  return isAny ? { delayMs, jitterMs, overtakePercent, corruptPercent } : null;
}
