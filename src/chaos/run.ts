/**
 * One run of the user's script under `launch`'s supervision, with its coordinator in a process of its own, perhaps in
 * namespaces, and faults that a plan names. Nothing outlives it.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { launchEnvironment } from '../launch/environment.ts';
import { type Exit, exitText } from '../launch/exit.ts';
import { runProcesses } from '../launch/processes.ts';
import type { ObservedLine } from '../observe.ts';
import { MortalCoordinator } from './coordinator.ts';
import type { Network } from './network.ts';
import { type Ended, type Life, Observations } from './observations.ts';
import { describeFault, type Inflicted, type Moment, type PlannedFault } from './plan.ts';

/** Looks at what the peers have written (ms). */
const POLL_MS = 20;

/** A fault that waits for a moment does not wait longer (ms): the detector takes 3 s to notice a silent peer. */
const MOMENT_MS = 4_000;

/** In namespaces nobody else has it. */
const COORDINATOR_PORT = 7400;

/** Between asking processes to end and killing them, and the longest wait before one is started again (ms). */
const GRACE_MS = 5_000;
const RESTART_MS = 1_000;

export interface ChaosRun {
  readonly command: readonly [string, ...string[]];
  /** What the `skein` command is called by. */
  readonly skein: readonly [string, ...string[]];
  readonly peers: number;
  readonly network: Network | null;
  readonly faults: readonly PlannedFault[];
  /** The first collective must be completed within so many milliseconds, or the run is given up. */
  readonly patienceMs: number;
  /** Milliseconds from the first result on in which faults may come. */
  readonly stormMs: number;
  /** Milliseconds from the end of the last fault on until the run is stopped. */
  readonly tailMs: number;
  /** For its files. */
  readonly folder: string;
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly prefix: (index: number) => string;
  readonly say: (text: string) => void;
  /** Ends it early. */
  readonly signal: AbortSignal;
}

export interface ChaosOutcome {
  readonly lives: readonly Life[];
  readonly inflicted: readonly Inflicted[];
  readonly ended: readonly Ended[];
  /** How the coordinator ended by itself. */
  readonly coordinatorEnds: readonly (number | string)[];
  /** Whether anybody completed a collective. */
  readonly began: boolean;
  /** When the first collective was completed, when the last fault was over, and when the run was stopped (ms since 1970). */
  readonly startedAt: number;
  readonly calmFrom: number;
  readonly stoppedAt: number;
}

export async function runChaos(options: ChaosRun): Promise<ChaosOutcome> {
  const token = randomBytes(32).toString('hex');
  const { network, folder, skein, signal } = options;
  mkdirSync(folder, { recursive: true });
  const host = network?.namespaces.address('coordinator') ?? '127.0.0.1';
  const store = join(folder, 'coordinator.json');
  const plain: [string, ...string[]] = [...skein, 'coordinator', '--host', host, '--store', store];
  const command = network?.namespaces.wrap('coordinator', plain) ?? plain;
  const environment = { ...process.env, ...network?.namespaces.environment, SKEIN_TOKEN: token };
  const port = network === null ? 0 : COORDINATOR_PORT;
  const coordinator = await MortalCoordinator.start({ command, environment }, port);
  const storm = new Storm(options, coordinator, token);
  const onAbort = () => storm.stop();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (signal.aborted) onAbort();
    return await storm.run();
  } finally {
    signal.removeEventListener('abort', onAbort);
    storm.stop();
    coordinator.close();
  }
}

function now(): number {
  return performance.timeOrigin + performance.now();
}

function isMoment(line: ObservedLine, moment: Moment): boolean {
  if (moment === 'recovery') return line.type === 'peer-lost' || line.type === 'coordinator-lost';
  return line.type === moment;
}

class Storm {
  readonly #options: ChaosRun;
  readonly #coordinator: MortalCoordinator;
  readonly #token: string;
  readonly #observations: Observations;
  /** Process groups by peer, and how often each peer was started before. */
  readonly #pids: Map<number, number> = new Map();
  readonly #restarts: Map<number, number> = new Map();
  readonly #inflicted: Inflicted[] = [];
  readonly #ended: Ended[] = [];
  /** Peers that a fault ends. */
  readonly #ending: Set<number> = new Set();
  readonly #stop: AbortController = new AbortController();

  constructor(options: ChaosRun, coordinator: MortalCoordinator, token: string) {
    this.#options = options;
    this.#coordinator = coordinator;
    this.#token = token;
    const folder = join(options.folder, 'observed');
    mkdirSync(folder, { recursive: true });
    this.#observations = new Observations(folder);
  }

  stop(): void {
    this.#stop.abort();
  }

  async run(): Promise<ChaosOutcome> {
    const running = this.#runProcesses().then(() => this.stop());
    try {
      const began = await this.#firstResult();
      const startedAt = now();
      if (began) await this.#storm(startedAt);
      const calmFrom = now();
      if (began) await this.#until(calmFrom + this.#options.tailMs);
      const stoppedAt = now();
      this.stop();
      await running;
      this.#observations.poll();
      const { lives } = this.#observations;
      const seen = { lives, inflicted: this.#inflicted, ended: this.#ended, coordinatorEnds: this.#coordinator.ends };
      return { ...seen, began, startedAt, calmFrom, stoppedAt };
    } finally {
      this.stop();
      await running;
    }
  }

  #runProcesses(): Promise<number> {
    const { command, peers, network, stdout, stderr, prefix, say } = this.#options;
    const { address: coordinator } = this.#coordinator;
    const launched = { coordinator, run: 'chaos', token: this.#token, processes: peers, minWorldSize: 1 };
    return runProcesses({
      command,
      policy: {
        processes: peers,
        maxRestarts: Number.POSITIVE_INFINITY,
        graceMs: GRACE_MS,
        longestDelayMs: RESTART_MS,
      },
      environment: (index, restarts) => {
        this.#restarts.set(index, restarts);
        return {
          ...process.env,
          ...network?.namespaces.environment,
          ...launchEnvironment(launched, index, restarts),
          SKEIN_OBSERVE: this.#observations.pathOf(index, restarts),
        };
      },
      wrap: (index, wrapped) => network?.namespaces.wrap(index, wrapped) ?? wrapped,
      prefix,
      stdout,
      stderr,
      say,
      stop: this.#stop.signal,
      onStarted: (index, pid) => void this.#pids.set(index, pid),
      onEnded: (index, exit) => this.#onEnded(index, exit),
    });
  }

  /** Whether it is to be started again even if it did not fail. */
  #onEnded(index: number, exit: Exit): boolean {
    this.#pids.delete(index);
    const byFault = this.#ending.delete(index);
    const restarts = this.#restarts.get(index) ?? 0;
    if (!this.#stop.signal.aborted) this.#ended.push({ index, restarts, at: now(), how: exitText(exit), byFault });
    return byFault;
  }

  /** Waits for it; whether it came. */
  async #firstResult(): Promise<boolean> {
    const { patienceMs, say } = this.#options;
    const end = now() + patienceMs;
    while (!this.#observations.poll().some((line) => line.type === 'settled')) {
      if (this.#stop.signal.aborted) return false;
      if (now() > end) {
        say(`no peer completed a collective within ${patienceMs / 1_000} s: given up`);
        return false;
      }
      await sleep(POLL_MS);
    }
    return true;
  }

  /** Inflicts what is planned, then waits until its time, and the last of it, is over. */
  async #storm(startedAt: number): Promise<void> {
    const { faults, stormMs, say } = this.#options;
    const end = startedAt + stormMs;
    const healing: Promise<void>[] = [];
    const failures: unknown[] = [];
    const fail = (error: unknown): void => {
      failures.push(error);
      this.stop();
    };
    for (const [index, fault] of faults.entries()) {
      await this.#until(startedAt + fault.at);
      if (now() > end) {
        say(`${faults.length - index} faults are left out: those before them waited for their moments too long`);
        break;
      }
      const hit = await this.#moment(fault.moment);
      if (this.#stop.signal.aborted) break;
      healing.push(this.#inflict(fault, hit).catch(fail));
    }
    await this.#until(end);
    await Promise.all(healing);
    if (failures.length > 0) throw failures[0];
  }

  async #until(time: number): Promise<void> {
    while (now() < time && !this.#stop.signal.aborted) {
      this.#observations.poll();
      await sleep(Math.min(POLL_MS, Math.max(0, time - now())));
    }
  }

  /** Waits for it; whether it came. */
  async #moment(moment: Moment): Promise<boolean> {
    if (moment === 'now') return true;
    const end = now() + MOMENT_MS;
    this.#observations.poll();
    while (now() < end && !this.#stop.signal.aborted) {
      if (this.#observations.poll().some((line) => isMoment(line, moment))) return true;
      await sleep(1);
    }
    return false;
  }

  /** Resolves when the fault is over. */
  async #inflict(fault: PlannedFault, hit: boolean): Promise<void> {
    const at = now();
    const record = { fault, hit, at, until: at };
    this.#inflicted.push(record);
    this.#options.say(describeFault(fault));
    try {
      await this.#carryOut(fault);
    } finally {
      record.until = now();
    }
  }

  async #carryOut(fault: PlannedFault): Promise<void> {
    switch (fault.kind) {
      case 'kill':
        if (this.#signal(fault.victim, 'SIGKILL')) this.#ending.add(fault.victim);
        return;
      case 'restart':
        return this.#restart(fault.victim);
      case 'stop': {
        const pid = this.#pids.get(fault.victim);
        this.#signal(fault.victim, 'SIGSTOP');
        await this.#pause(fault.forMs);
        // Not whoever was started in its place.
        if (pid === this.#pids.get(fault.victim)) this.#signal(fault.victim, 'SIGCONT');
        return;
      }
      case 'coordinator':
        return this.#coordinator.restart(() => this.#pause(fault.forMs));
      case 'partition':
      case 'slow':
      case 'loss':
      case 'delay':
      case 'reorder':
      case 'corrupt':
        this.#options.network?.begin(fault);
        await this.#pause(fault.forMs);
        this.#options.network?.end(fault);
        return;
      default:
        fault satisfies never;
    }
  }

  /** As those do who run services: asked to end, and killed when it does not. */
  async #restart(victim: number): Promise<void> {
    const pid = this.#pids.get(victim);
    if (!this.#signal(victim, 'SIGTERM')) return;
    this.#ending.add(victim);
    const end = now() + GRACE_MS;
    while (this.#pids.get(victim) === pid && now() < end && !this.#stop.signal.aborted) await sleep(POLL_MS);
    if (this.#pids.get(victim) === pid) this.#signal(victim, 'SIGKILL');
  }

  async #pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stop.signal }).catch(() => {}); // what was begun is ended all the same
  }

  /** To the peer's whole process group; whether it was there. */
  #signal(index: number, signal: NodeJS.Signals): boolean {
    const pid = this.#pids.get(index);
    if (pid === undefined) return false;
    try {
      process.kill(-pid, signal);
      return true;
    } catch {
      return false; // It has just ended.
    }
  }
}
