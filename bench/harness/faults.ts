/** The faults whose cost `npm run bench:recovery` measures: how each is inflicted, and how it is mended. */
import { monotonic } from './member.ts';
import type { Cost, Swarm } from './swarm.ts';

const MIB = 1024 * 1024;

/** How long a coordinator is away (ms). */
const AWAY_MS = 500;

/** How late a member is that the others are to go on without (ms). */
const LATE_MS = 8_000;

/** How long every packet of a connection is answered with a reset: long enough to meet one (ms). */
const RESET_MS = 50;

/** The link for which salvaging is measured (Mbit/s), the tensor, and when a peer dies. */
export const SHAPED_MEGABITS = 1_000;
export const SHAPED_BYTES: number = 256 * MIB;
const DIES_AT = 0.8;

/** One fault and its repair; what it cost in between. */
type Round = (swarm: Swarm, victim: number) => Promise<Cost>;

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The victim is lost, and a fresh process takes its place. `inflict` returns when it happened. */
function losing(inflict: (swarm: Swarm, victim: number) => number | Promise<number>): Round {
  return async (swarm, victim) => {
    const cost = await swarm.cost(await inflict(swarm, victim), victim);
    await swarm.replace(victim);
    return cost;
  };
}

/** Nobody is lost: all go on, and the network is mended afterwards. */
function disturbing(inflict: (swarm: Swarm, victim: number) => void | Promise<void>): Round {
  return async (swarm, victim) => {
    const since = monotonic();
    await inflict(swarm, victim);
    const cost = await swarm.cost(since, null);
    swarm.namespaces?.heal(victim);
    await swarm.settle();
    return cost;
  };
}

/** Answers all packets from the victim to another one with a reset, for a moment. */
async function reset(swarm: Swarm, victim: number, other: number | 'coordinator'): Promise<void> {
  swarm.namespaces?.reset(victim, [other]);
  await sleep(RESET_MS);
  swarm.namespaces?.heal(victim);
}

const restart: Round = async (swarm) => {
  const { child, address } = swarm.coordinator;
  const since = monotonic();
  child.kill('SIGKILL');
  await sleep(AWAY_MS);
  await swarm.listen(Number(address.slice(address.lastIndexOf(':') + 1)));
  const { recovered } = await swarm.cost(swarm.coordinator.at, null);
  const { noticed } = await swarm.cost(since, null);
  await swarm.settle();
  return { noticed, recovered };
};

const late: Round = async (swarm, victim) => {
  const cost = await swarm.cost(await swarm.members[victim]!.lateBy(LATE_MS), victim);
  await swarm.settle();
  return cost;
};

export interface FaultCase {
  readonly name: string;
  readonly what: string;
  /** Seconds until the next result that are wanted at most. */
  readonly bar: number | null;
  /** It takes long, or there is no bar to meet: a few rounds will do. */
  readonly few: boolean;
  readonly round: Round;
  readonly network: 'loopback' | 'namespaces' | 'shaped';
  readonly store: boolean;
  readonly recovery: 'restart' | 'salvage';
  readonly stragglers: 'wait' | 'exclude';
}

const PLAIN = {
  network: 'loopback',
  store: false,
  recovery: 'restart',
  stragglers: 'wait',
  bar: null,
  few: false,
} as const;
const NETWORK = { ...PLAIN, network: 'namespaces', few: true } as const;
const FEW = { ...PLAIN, few: true } as const;
const LATE_DEATH = losing((swarm, victim) => swarm.members[victim]!.dieAt(DIES_AT));

/** Once a fault is inflicted. */
function now(inflict: () => void): number {
  inflict();
  return monotonic();
}

export const FAULT_CASES: readonly FaultCase[] = [
  {
    ...PLAIN,
    name: 'kill',
    what: 'SIGKILL of a peer',
    round: losing((swarm, victim) => swarm.members[victim]!.dieAt(0.5)),
  },
  {
    ...PLAIN,
    name: 'stop',
    what: 'SIGSTOP of a peer',
    bar: 1.5,
    round: losing((swarm, victim) => now(() => swarm.members[victim]!.child.kill('SIGSTOP'))),
  },
  {
    ...NETWORK,
    few: false,
    name: 'drop',
    what: 'all packets of one peer dropped',
    bar: 1.5,
    round: losing((swarm, victim) => now(() => swarm.namespaces?.drop(victim, 'all'))),
  },
  { ...PLAIN, name: 'coordinator', what: 'coordinator killed, restarted without store', bar: 1, round: restart },
  {
    ...PLAIN,
    name: 'store',
    what: 'coordinator killed, restarted with its store',
    bar: 1,
    round: restart,
    store: true,
  },
  {
    ...NETWORK,
    name: 'cut',
    what: 'all packets between two peers dropped',
    round: disturbing((swarm, victim) => swarm.namespaces?.drop(victim, [(victim + 1) % swarm.members.length])),
  },
  {
    ...NETWORK,
    name: 'link',
    what: 'link between two peers reset',
    round: disturbing((swarm, victim) => reset(swarm, victim, (victim + 1) % swarm.members.length)),
  },
  {
    ...NETWORK,
    name: 'control',
    what: 'connection of a peer to the coordinator reset',
    round: disturbing((swarm, victim) => reset(swarm, victim, 'coordinator')),
  },
  { ...FEW, name: 'late', what: "a peer 8 s late, stragglers: 'exclude'", round: late, stragglers: 'exclude' },
  { ...FEW, name: 'late-restart', what: 'SIGKILL at 80 %, restart', round: LATE_DEATH, network: 'shaped' },
  {
    ...FEW,
    name: 'late-salvage',
    what: 'SIGKILL at 80 %, salvage',
    round: LATE_DEATH,
    network: 'shaped',
    recovery: 'salvage',
  },
];
