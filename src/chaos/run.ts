/**
 * One run of the user's script under `launch`'s supervision, with its coordinator in a process of its own, perhaps in
 * namespaces, and faults that a plan names. Nothing outlives it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { launchEnvironment } from '../launch/environment.ts';
import { exitText } from '../launch/exit.ts';
import { runProcesses } from '../launch/processes.ts';
import type { Namespaces } from './namespaces.ts';
import { type Life, Observations } from './observations.ts';
import { describeFault, type Fault, type Moment, type PlannedFault } from './plan.ts';
import type { Ended, Inflicted } from './verdict.ts';

/** Looks at what the peers have written (ms). */
const POLL_MS = 20;

/** A fault that waits for a moment does not wait longer (ms). */
const MOMENT_MS = 2_000;

/** A coordinator must listen within this (ms). */
const LISTEN_MS = 20_000;

/** Between asking processes to end and killing them, and the longest wait before one is started again (ms). */
const GRACE_MS = 5_000;
const RESTART_MS = 1_000;

export interface ChaosRun {
  readonly command: readonly [string, ...string[]];
  /** What the `skein` command is called by. */
  readonly skein: readonly [string, ...string[]];
  readonly peers: number;
  readonly namespaces: Namespaces | null;
  readonly faults: readonly PlannedFault[];
  /** Milliseconds from the first result on until the run is stopped. */
  readonly forMs: number;
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
  /** When the first collective was completed, and when the run was stopped (ms since 1970). */
  readonly startedAt: number;
  readonly stoppedAt: number;
}

export function runChaos(options: ChaosRun): Promise<ChaosOutcome> {
  return new Storm(options).run();
}

type NetworkFault = Extract<Fault, { kind: 'partition' | 'slow' | 'loss' }>;

function apply(namespaces: Namespaces, fault: NetworkFault): void {
  if (fault.kind === 'partition') namespaces.drop(fault.victim, fault.others);
  else if (fault.kind === 'slow') namespaces.shape(fault.victim, fault.megabits);
  else namespaces.lose(fault.victim, fault.percent);
}

function now(): number {
  return performance.timeOrigin + performance.now();
}

class Storm {
  readonly #options: ChaosRun;
  readonly #observations: Observations;
  readonly #token: string = randomBytes(32).toString('hex');
  /** Process groups by peer. */
  readonly #pids: Map<number, number> = new Map();
  readonly #inflicted: Inflicted[] = [];
  readonly #ended: Ended[] = [];
  readonly #killed: Set<number> = new Set();
  readonly #disturbing: Set<NetworkFault> = new Set();
  readonly #stop: AbortController = new AbortController();
  #coordinator: ChildProcess | null = null;
  #address = '';
  #coordinatorWanted = true;

  constructor(options: ChaosRun) {
    this.#options = options;
    const folder = join(options.folder, 'observed');
    mkdirSync(folder, { recursive: true });
    this.#observations = new Observations(folder);
    options.signal.addEventListener('abort', () => this.#stop.abort(), { once: true });
  }

  async run(): Promise<ChaosOutcome> {
    const { command, peers, namespaces, stdout, stderr, prefix, say } = this.#options;
    await this.#startCoordinator(this.#options.namespaces === null ? 0 : 7400);
    const launched = {
      coordinator: this.#address,
      run: 'chaos',
      token: this.#token,
      processes: peers,
      minWorldSize: 1,
    };
    try {
      const running = runProcesses({
        command,
        policy: {
          processes: peers,
          maxRestarts: Number.POSITIVE_INFINITY,
          graceMs: GRACE_MS,
          longestDelayMs: RESTART_MS,
        },
        environment: (index, restarts) => ({
          ...process.env,
          ...namespaces?.environment,
          ...launchEnvironment(launched, index, restarts),
          SKEIN_OBSERVE: this.#observations.pathOf(index, restarts),
        }),
        wrap: (index, wrapped) => namespaces?.wrap(index, wrapped) ?? wrapped,
        prefix,
        stdout,
        stderr,
        say,
        stop: this.#stop.signal,
        onStarted: (index, pid) => void this.#pids.set(index, pid),
        onEnded: (index, exit) => {
          this.#pids.delete(index);
          if (!this.#killed.delete(index) && !this.#stop.signal.aborted)
            this.#ended.push({ index, at: now(), how: exitText(exit) });
        },
      }).then(() => this.#stop.abort());
      const startedAt = await this.#firstResult();
      await this.#storm(startedAt);
      const stoppedAt = now();
      this.#stop.abort();
      await running;
      this.#observations.poll();
      const { lives } = this.#observations;
      return { lives, inflicted: this.#inflicted, ended: this.#ended, startedAt, stoppedAt };
    } finally {
      this.#stop.abort();
      this.#coordinatorWanted = false;
      this.#coordinator?.kill('SIGKILL');
    }
  }

  async #firstResult(): Promise<number> {
    while (!this.#stop.signal.aborted) {
      if (this.#observations.poll().some((line) => line.type === 'settled')) break;
      await sleep(POLL_MS);
    }
    return now();
  }

  /** Inflicts what is planned, then waits until the time is over. */
  async #storm(startedAt: number): Promise<void> {
    const { faults, forMs } = this.#options;
    const healing: Promise<void>[] = [];
    for (const fault of faults) {
      await this.#until(startedAt + fault.at);
      await this.#moment(fault.moment);
      if (this.#stop.signal.aborted) break;
      healing.push(this.#inflict(fault));
    }
    await this.#until(startedAt + forMs);
    await Promise.all(healing);
  }

  async #until(time: number): Promise<void> {
    while (now() < time && !this.#stop.signal.aborted) {
      this.#observations.poll();
      await sleep(Math.min(POLL_MS, Math.max(0, time - now())));
    }
  }

  async #moment(moment: Moment): Promise<void> {
    const end = now() + MOMENT_MS;
    this.#observations.poll();
    while (moment !== 'now' && now() < end && !this.#stop.signal.aborted) {
      if (this.#observations.poll().some((line) => line.type === moment)) return;
      await sleep(1);
    }
  }

  /** Resolves when the fault is over. */
  async #inflict(fault: Fault): Promise<void> {
    const at = now();
    const lasts = fault.kind === 'kill' ? 0 : fault.forMs;
    this.#inflicted.push({ fault, at, until: at + lasts });
    this.#options.say(describeFault(fault));
    const { namespaces } = this.#options;
    switch (fault.kind) {
      case 'kill':
        if (this.#signal(fault.victim, 'SIGKILL')) this.#killed.add(fault.victim);
        return;
      case 'stop': {
        const pid = this.#pids.get(fault.victim);
        this.#signal(fault.victim, 'SIGSTOP');
        await this.#pause(lasts);
        // Not whoever was started in its place.
        if (pid === this.#pids.get(fault.victim)) this.#signal(fault.victim, 'SIGCONT');
        return;
      }
      case 'coordinator':
        await this.#restartCoordinator(lasts);
        return;
      case 'partition':
      case 'slow':
      case 'loss':
        if (namespaces !== null) await this.#disturb(namespaces, fault);
        break;
      default:
        fault satisfies never;
    }
  }

  /** Several may disturb the network of one peer at the same time. */
  async #disturb(namespaces: Namespaces, fault: NetworkFault): Promise<void> {
    this.#disturbing.add(fault);
    apply(namespaces, fault);
    await this.#pause(fault.forMs);
    this.#disturbing.delete(fault);
    namespaces.heal(fault.victim);
    if (fault.kind === 'slow') namespaces.shape(fault.victim, null);
    for (const other of this.#disturbing) if (other.victim === fault.victim) apply(namespaces, other);
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

  async #startCoordinator(port: number): Promise<void> {
    const { namespaces, folder, skein } = this.#options;
    const host = namespaces?.hubAddress ?? '127.0.0.1';
    const store = join(folder, 'coordinator.json');
    const plain: [string, ...string[]] = [...skein, 'coordinator', '--host', host, '--port', `${port}`];
    const [program, ...args] = namespaces?.wrap('hub', [...plain, '--store', store]) ?? [...plain, '--store', store];
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...namespaces?.environment, SKEIN_TOKEN: this.#token },
    });
    this.#coordinator = child;
    let text = '';
    this.#address = await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`The coordinator did not listen within ${LISTEN_MS} ms.`)),
        LISTEN_MS,
      );
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`The coordinator ended with exit code ${code}.`)));
      child.stdout.on('data', (bytes: Buffer) => {
        text += bytes.toString();
        const address = /tcp:\/\/\S+:\d+/.exec(text)?.[0];
        if (address === undefined) return;
        clearTimeout(timer);
        resolve(address);
      });
    });
  }

  async #restartCoordinator(awayMs: number): Promise<void> {
    const child = this.#coordinator;
    if (child === null) return; // it is away already
    this.#coordinator = null;
    const gone = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await gone;
    await this.#pause(awayMs);
    if (this.#coordinatorWanted) await this.#startCoordinator(Number(/\d+$/.exec(this.#address)?.[0]));
  }
}
