/**
 * Runs one scenario: real coordinator, real peers, virtual time. Faults come while the storm lasts; then the weather clears,
 * and within a bound every peer that is left must take part in two steps more without a failure, and leave.
 */
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { createInlineEngine } from '../../src/engine/inline.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { SkeinError } from '../../src/errors.ts';
import { Group, memoryOf } from '../../src/group.ts';
import type { Report, Step, SyncReport } from '../../src/index.ts';
import type { Kernels } from '../../src/kernels/kernels.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import type { Store } from '../../src/store/store.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork, type Weather } from '../../src/transport/memory.ts';
import type { Address } from '../../src/transport/transport.ts';
import { InvariantError, Oracle } from './oracle.ts';
import { freshKernels, simPlatform } from './platform.ts';
import { SimProcess } from './process.ts';
import { mix, Random } from './random.ts';
import { PATIENT_MS, type Scenario, type TimedFault } from './scenario.ts';
import { StateOracle, UserState } from './state.ts';
import { type Call, call, stepPlan } from './workload.ts';

export interface Outcome {
  /** What went wrong, or null. */
  readonly failure: string | null;
  readonly trace: readonly string[];
  readonly virtualMs: number;
  readonly events: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly retried: number;
  readonly salvaged: number;
  readonly excluded: number;
  /** Syncs of a shared state that succeeded, and those of them in which something was fetched. */
  readonly synced: number;
  readonly healed: number;
}

const COORDINATOR: Address = { kind: 'memory', name: 'coordinator' };
const TOKEN = 'of the simulation';
const SECURITY = resolveSecurity({}, TOKEN);

/** After the storm, everything must have come to its end within so much virtual time. */
const CALM_MS = 60_000;

const CALM_WEATHER: Partial<Weather> = { cutChance: 0 };

/** Beside the longest bound of the detectors: a restarted coordinator's grace, and the way back to it (ms). */
const SETTLE_MS = 1_500;

/** The longest bound of the detectors, in shortest ones. */
const PATIENCE = 4;

/** Between steps after the storm, and when what happened in it has been noticed. */
const CALM_STEP_MS = 1_500;
const LAST_STEP_MS = 250;

/** Steps that everybody still does after the storm. */
const LAST_STEPS = 2;

/** However many join. */
const MAX_MACHINES = 12;

/** No run has more events than this: whoever does turns in a circle. */
const MAX_EVENTS = 3_000_000;

/** How the coordinator notes that it will have nothing more to do with a peer. */
const EXPELLED = 'it broke the protocol';

/** After the storm, a user whose calls find too few others so many times gives up. */
const MAX_LACKS = 4;

/** Errors that a storm may cause. Anything else is a defect. */
const EXPECTED_CODES = new Set([
  'SKEIN_TIMEOUT',
  'SKEIN_PEER_LOST',
  'SKEIN_EVICTED',
  'SKEIN_CONNECT',
  'SKEIN_QUORUM',
  'SKEIN_WITHDRAWN',
  'SKEIN_MISMATCH',
  'SKEIN_CLOSED',
  'SKEIN_EXCLUDED',
  'SKEIN_STATE_LOST',
]);

/** After these a group is no use any more. */
const FINAL_CODES: ReadonlySet<string | null> = new Set(['SKEIN_EVICTED', 'SKEIN_CONNECT', 'SKEIN_CLOSED']);

/** Tags of a group's own collectives that take part in a sync begin so. */
const SYNC_TAG = 'skein.state:';

/** Of boundaries at which a user could change its state alone, one in so many sees it done. */
const FLIPS_BY = 12;

const ROOTED: ReadonlySet<string> = new Set(['broadcast', 'reduce', 'gather', 'scatter']);

/** A machine and the user's program on it. */
interface Machine {
  readonly index: number;
  process: SimProcess;
  incarnations: number;
  group: Group | null;
  abort: AbortController;
  /** What the user does wrong next. */
  wrong: boolean;
  lateMs: number;
  /** What its user shares, if anything is shared. */
  state: UserState | null;
  /** Censuses begun by the syncs of its group, and the last that succeeded. */
  censuses: number;
  census: Report | null;
  leaves: boolean;
  /** It has done its part, and leaves for good. */
  stops: boolean;
  finished: boolean;
  /** How often there were too few others since the storm. */
  lacks: number;
}

type Rule = (from: string, to: string) => boolean;
type WeatherRule = Parameters<MemoryNetwork['shape']>[0];

class World {
  readonly clock: VirtualClock = new VirtualClock();
  readonly #scenario: Scenario;
  readonly #kernels: Kernels;
  readonly #random: Random;
  readonly #network: MemoryNetwork;
  readonly #oracle: Oracle = new Oracle();
  readonly #stateOracle: StateOracle | null;
  readonly #machines: Machine[] = [];
  readonly #trace: string[] = [];
  /** Rules of what can't reach what, while their faults last. */
  readonly #blocks: Set<Rule> = new Set();
  readonly #slow: Set<WeatherRule> = new Set();
  #coordinator: SimProcess;
  #store: Store = new MemoryStore(this.clock, false);
  #coordinatorStarts = 0;
  #server: CoordinatorServer | null = null;
  #calmSince: number | null = null;
  /** When a user last disturbed the others: one who is late sleeps until then, or one who would join, or waits for others, has given up. */
  #unrestUntil = 0;
  #lastBoundary = 0;
  #stopAfter = Number.POSITIVE_INFINITY;
  #failure: string | null = null;
  /** How long processes were stopped, all together. */
  #stoppedMs = 0;

  constructor(scenario: Scenario, kernels: Kernels) {
    this.#scenario = scenario;
    this.#kernels = kernels;
    this.#random = new Random(mix(scenario.seed, 1));
    this.#network = new MemoryNetwork({
      clock: this.clock,
      seed: mix(scenario.seed, 2),
      weather: scenario.weather,
      // All that is here keeps the protocol, whatever the weather.
      onRefused: (host, remote, { message }) =>
        this.#fail(`protocol: ${host} refused what came from ${remote}: ${message}`),
    });
    this.#coordinator = new SimProcess('coordinator', this.clock);
    this.#stateOracle = scenario.state === undefined ? null : new StateOracle(scenario.state);
  }

  async run(): Promise<Outcome> {
    const { machines, faults, stormMs } = this.#scenario;
    void this.#startCoordinator();
    for (let index = 0; index < machines; index++) this.#addMachine();
    for (const fault of faults) this.clock.schedule(fault.at, () => this.#inflict(fault));
    this.clock.schedule(stormMs, () => this.#calm());
    let events = 0;
    await turnByTurn(() => {
      if (this.#failure !== null || this.#finished) return false;
      if (!this.clock.step()) {
        this.#fail('progress: nothing is under way, and yet not everything has ended');
        return false;
      }
      events += 1;
      if (this.clock.now() > stormMs + CALM_MS)
        this.#fail(`progress: not everything has ended ${CALM_MS} ms after the storm`);
      if (events > MAX_EVENTS) this.#fail(`progress: ${events} events, and no end`);
      return true;
    });
    if (this.#failure === null) await this.#checkNothingIsLeft();
    else await this.#describe();
    const { succeeded, failed, retried, salvaged, excluded } = this.#oracle;
    return {
      failure: this.#failure,
      trace: this.#trace,
      virtualMs: this.clock.now(),
      events,
      succeeded,
      failed,
      retried,
      salvaged,
      excluded,
      synced: this.#stateOracle?.synced ?? 0,
      healed: this.#stateOracle?.healed ?? 0,
    };
  }

  /** By then everybody has noticed what happened in the storm: no call of a step that begins later may fail. */
  get #settledAt(): number {
    if (this.#calmSince === null) return Number.POSITIVE_INFINITY;
    return Math.max(this.#calmSince, this.#unrestUntil) + PATIENCE * this.#scenario.lostAfterMs + SETTLE_MS;
  }

  /** Somebody may call what the others do not. */
  get #hasWrongCalls(): boolean {
    return this.#scenario.faults.some(({ kind }) => kind === 'wrong');
  }

  get #finished(): boolean {
    return this.#calmSince !== null && this.#machines.every((machine) => machine.finished || machine.process.dead);
  }

  /** There were too few for a machine. It gives up when there won't be more, or when it has waited often enough in calm weather. */
  #lackQuorum(machine: Machine): void {
    if (this.#calmSince === null) return;
    machine.lacks += 1;
    const left = this.#machines.filter(({ process, finished, stops }) => !process.dead && !finished && !stops);
    if (left.length < this.#scenario.minWorldSize || machine.lacks >= MAX_LACKS) machine.stops = true;
  }

  /** A user keeps the others waiting until then. */
  #disturb(until: number): void {
    this.#unrestUntil = Math.max(this.#unrestUntil, until);
  }

  #fail(text: string): void {
    this.#failure ??= text;
    this.#note(`FAILED ${text}`);
  }

  #note(text: string): void {
    this.#trace.push(`${this.clock.now().toFixed(2).padStart(10)}  ${text}`);
  }

  /** What everybody is waiting for. */
  async #describe(): Promise<void> {
    for (const machine of this.#machines) {
      if (machine.finished || machine.process.dead) continue;
      const { group } = machine;
      this.#note(`machine ${machine.index} (${group?.peerId ?? 'joining'}) has not finished`);
      void group?.status().then((status) => this.#note(JSON.stringify(status)));
    }
    for (const [name, run] of Object.entries(this.#server?.status() ?? {}))
      this.#note(`${name}: ${JSON.stringify(run)}`);
    await settled();
  }

  /** All have left: no connection is open, and no bytes are under way. */
  async #checkNothingIsLeft(): Promise<void> {
    await this.#server?.close();
    const end = this.clock.now() + 10_000;
    while (this.#network.openEnds > 0 && this.clock.now() < end && this.clock.step()) await settled();
    const { openEnds, queuedBytes } = this.#network;
    if (openEnds > 0 || queuedBytes > 0)
      this.#fail(`leak: ${openEnds} ends of connections are still open, and ${queuedBytes} bytes queued`);
  }

  // --- processes ---------------------------------------------------------------------------------------------------

  async #startCoordinator(): Promise<void> {
    const process = this.#coordinator;
    const { heartbeatMs, lostAfterMs } = this.#scenario;
    const platform = simPlatform(process, this.#surroundings);
    const onNote = (line: string) => {
      this.#note(line);
      if (line.includes(EXPELLED)) this.#fail(`protocol: ${line}`);
    };
    const options = { heartbeatMs, lostAfterMs, onNote, token: TOKEN, store: this.#store };
    this.#server = await CoordinatorServer.listenAt(
      COORDINATOR,
      options,
      platform,
      this.#coordinatorStarts++ === 0 ? 0 : 1_000,
    );
  }

  get #surroundings() {
    const { segmentBytes } = this.#scenario;
    return { network: this.#network, kernels: this.#kernels, random: this.#random, segmentBytes };
  }

  #addMachine(): void {
    const index = this.#machines.length;
    const machine: Machine = {
      index,
      process: new SimProcess(`m${index}`, this.clock),
      incarnations: 0,
      group: null,
      abort: new AbortController(),
      wrong: false,
      lateMs: 0,
      state: null,
      censuses: 0,
      census: null,
      leaves: false,
      stops: false,
      finished: false,
      lacks: 0,
    };
    this.#machines.push(machine);
    this.#boot(machine);
  }

  #boot(machine: Machine): void {
    machine.incarnations += 1;
    if (machine.incarnations > 1) machine.process = new SimProcess(`m${machine.index}`, this.clock);
    machine.group = null;
    machine.state = null;
    const { process } = machine;
    this.#live(machine, process).catch((error: unknown) => {
      if (process.dead) return;
      this.#fail(error instanceof InvariantError ? error.message : `defect: ${(error as Error).stack ?? error}`);
    });
  }

  // --- the user's program ------------------------------------------------------------------------------------------

  async #live(machine: Machine, process: SimProcess): Promise<void> {
    while (!machine.finished) {
      const group = await this.#join(machine, process);
      if (group === null) {
        await process.sleep(20 + (mix(this.#scenario.seed, machine.index, process.clock.now()) % 200));
        continue;
      }
      machine.group = group;
      group.on('view', ({ epoch }) => {
        const broken = this.#oracle.onView(group.peerId, epoch);
        if (broken !== null) this.#fail(broken);
      });
      await this.#train(machine, process, group);
      machine.group = null;
      // Others may have come in just now, who wait for its next call.
      if (machine.lacks >= MAX_LACKS) this.#disturb(this.clock.now());
      await group.leave();
      if (machine.stops) machine.finished = true;
      if (machine.leaves) {
        machine.leaves = false;
        this.#note(`machine ${machine.index} left as asked`);
      }
    }
  }

  async #join(machine: Machine, process: SimProcess): Promise<Group | null> {
    const { minWorldSize, stripes, machines, callTimeoutMs, seed, state } = this.#scenario;
    if (state !== undefined && (machine.state === null || !state.keeps)) machine.state = new UserState(seed, state);
    const memory = state?.joins === true ? await memoryOf(machine.state?.shared, 'inline') : null;
    const platform = simPlatform(process, this.#surroundings);
    const startWorldSize = machine.incarnations === 1 && mix(seed, 5) % 2 === 0 ? machines : minWorldSize;
    const runtime = {
      coordinators: [COORDINATOR],
      run: 'sim',
      name: `machine ${machine.index}`,
      token: TOKEN,
      security: SECURITY,
      minWorldSize,
      startWorldSize: this.#calmSince === null ? startWorldSize : 1,
      site: '',
      transports: ['memory'] as const,
      stripes,
      timeoutMs: callTimeoutMs,
    };
    try {
      const group = await Group.join(
        (onMessage) => createInlineEngine(onMessage, platform),
        { engine: 'inline', runtime },
        undefined,
        memory,
        null,
        null,
        state === undefined ? null : (describe) => this.#traceCensus(machine, describe().tag),
      );
      this.#note(`machine ${machine.index} is ${group.peerId}, epoch ${group.epoch}, ${group.worldSize} members`);
      return group;
    } catch (error) {
      this.#disturb(this.clock.now());
      this.#judge(error, `join of machine ${machine.index}`);
      // What was fetched before may be parts of several revisions.
      if (machine.state?.shared.revision === 0) machine.state = null;
      return null;
    }
  }

  /** Sees what comes of the collectives that a sync is made of. */
  #traceCensus(machine: Machine, tag: string): { done(report: Report): void; failed(): void } | null {
    if (!tag.startsWith(SYNC_TAG)) return null;
    machine.censuses += 1;
    return {
      done: (report) => {
        machine.census = report;
      },
      failed: () => {},
    };
  }

  /** Steps until the end, or until the group is no use any more. */
  async #train(machine: Machine, process: SimProcess, group: Group): Promise<void> {
    /** Of each step that may have calls open: what comes of them. */
    const open: (readonly Promise<string | null>[])[] = [];
    try {
      for await (const { boundary, worldSize } of this.#stepsOf(machine, group)) {
        this.#lastBoundary = Math.max(this.#lastBoundary, boundary);
        if (boundary > this.#stopAfter) {
          machine.stops = true;
          break;
        }
        if (machine.leaves) break;
        this.#note(`${group.peerId} passes boundary ${boundary}, ${worldSize} members`);
        if (!(await this.#syncWithin(machine, group, boundary))) break;
        open.push(await this.#makeCalls(machine, process, group, boundary));
        const result = await this.#await(machine, open, this.#scenario.ahead);
        if (result === 'gone' || machine.stops) break;
        this.#updateState(machine, group);
        // Whoever fell behind catches up.
        if (result === 'failed' || (this.#calmSince !== null && boundary < this.#lastBoundary)) continue;
        await process.sleep(this.#pauseAfter(boundary));
      }
    } catch (error) {
      if (error instanceof InvariantError) throw error;
      this.#judge(error, `boundary of ${group.peerId}`);
      if (codeOf(error) === 'SKEIN_QUORUM') this.#lackQuorum(machine);
    }
    await this.#await(machine, open, 0);
  }

  // --- shared state ------------------------------------------------------------------------------------------------

  #stepsOf(machine: Machine, group: Group): AsyncIterable<Step> {
    return this.#scenario.state?.loops === true ? this.#syncedSteps(machine, group) : group.steps();
  }

  /** Each begins with a sync of the state. They end where one fails: whoever left out a step alone would call what the others do not. */
  async *#syncedSteps(machine: Machine, group: Group): AsyncGenerator<Step> {
    const { every, strategy } = this.#scenario.state!; // as its steps are synced
    const { shared } = machine.state!; // made before the group
    const steps = group.steps({ state: shared, syncEvery: every, sync: { strategy } });
    // Between two steps the revision is counted up.
    for (let isFirst = true; ; isFirst = false) {
      const sync = this.#beginSync(machine, group, shared.revision + (isFirst ? 0 : 1));
      const { censuses } = machine;
      const next = await steps.next().catch((error: unknown) => {
        if (machine.censuses === censuses) throw error; // of the boundary
        sync.onFailure(error);
        return null;
      });
      if (next === null || next.done === true) return;
      if (next.value.sync !== null) sync.onSuccess(next.value.sync);
      yield next.value;
    }
  }

  /** @returns whether the group is of use still */
  async #syncWithin(machine: Machine, group: Group, boundary: number): Promise<boolean> {
    const { state: plan, seed } = this.#scenario;
    const { state } = machine;
    if (plan === undefined || state === null || plan.loops || mix(seed, boundary, 61) % plan.every > 0) return true;
    const { strategy, joins } = plan;
    const sync = this.#beginSync(machine, group, state.shared.revision);
    try {
      sync.onSuccess(await group.syncState(state.shared, { strategy, tag: joins ? '' : 'apart' }));
    } catch (error) {
      if (error instanceof InvariantError) throw error;
      return sync.onFailure(error);
    }
    return true;
  }

  /** @param revision of what the user has */
  #beginSync(
    machine: Machine,
    group: Group,
    revision: number,
  ): { onSuccess(report: SyncReport): void; onFailure(error: unknown): boolean } {
    const { process } = machine;
    const { peerId } = group;
    const [state, oracle] = [machine.state!, this.#stateOracle!]; // there are syncs only where a state is shared
    const startedAt = this.clock.now();
    const title = `sync of ${peerId}`;
    const chance = mix(this.#scenario.seed, machine.index, startedAt, 62);
    if (this.#scenario.state?.flips === true && this.#calmSince === null && chance % FLIPS_BY === 0) {
      if (!oracle.isHollow(peerId, revision)) state.flip(chance);
    }
    oracle.onBegin(peerId, revision, state.key);
    const onSuccess = (report: SyncReport) => {
      if (process.dead) return;
      const { id, epoch, contributors } = machine.census!; // the sync's last
      this.#note(
        `${title} succeeded: ${id}, epoch ${epoch}, ${contributors.join()}: revision ${report.revision}, ${report.received} bytes from ${report.from.join()}`,
      );
      oracle.onSuccess(peerId, machine.census!, state, report);
    };
    const onFailure = (error: unknown): boolean => {
      if (process.dead) return false;
      oracle.onFailure(peerId, state);
      this.#judge(error, title, startedAt > this.#settledAt);
      const elapsed = this.clock.now() - startedAt;
      // Where it belongs to a step, that one's boundary comes first.
      if (elapsed > 2 * this.#scenario.callTimeoutMs + this.#stoppedMs + 10_000)
        this.#fail(`progress: ${title} ended ${elapsed.toFixed(0)} ms after it was called`);
      const code = codeOf(error);
      if (code === 'SKEIN_QUORUM') this.#lackQuorum(machine);
      if (code === 'SKEIN_STATE_LOST') state.load();
      return !FINAL_CODES.has(code) && !machine.stops;
    };
    return { onSuccess, onFailure };
  }

  /** At the end of a step. In a loop of `steps({ state })` that counts up the revision. */
  #updateState({ state }: Machine, { peerId }: Group): void {
    if (state === null || this.#stateOracle?.isHollow(peerId, state.shared.revision) === true) return;
    const revision = state.shared.revision + 1;
    state.update(revision);
    if (this.#scenario.state?.loops === false) state.shared.revision = revision;
  }

  // --- collectives -------------------------------------------------------------------------------------------------

  /** Waits until no more than so many steps have calls open; `gone`: the group is no use any more. */
  async #await(
    machine: Machine,
    open: (readonly Promise<string | null>[])[],
    most: number,
  ): Promise<'done' | 'failed' | 'gone'> {
    let result: 'done' | 'failed' | 'gone' = 'done';
    while (open.length > most) {
      for (const code of await Promise.all(open.shift()!)) {
        if (code === 'SKEIN_EVICTED' || code === 'SKEIN_CONNECT') result = 'gone';
        else if (code === 'SKEIN_QUORUM' && this.#calmSince !== null) this.#lackQuorum(machine);
        else if (code !== null && result === 'done') result = 'failed';
      }
    }
    return result;
  }

  #pauseAfter(boundary: number): number {
    if (this.#calmSince === null) return mix(this.#scenario.seed, boundary, 3) % 80;
    return this.clock.now() < this.#settledAt ? CALM_STEP_MS : LAST_STEP_MS;
  }

  /** All collectives of a step at once. */
  async #makeCalls(
    machine: Machine,
    process: SimProcess,
    group: Group,
    boundary: number,
  ): Promise<readonly Promise<string | null>[]> {
    machine.abort = new AbortController();
    const startedAt = this.clock.now();
    const outcomes: Promise<string | null>[] = [];
    for (const planned of stepPlan(this.#scenario.seed, boundary)) {
      if (machine.lateMs > 0) {
        const { lateMs } = machine;
        machine.lateMs = 0;
        this.#disturb(this.clock.now() + lateMs);
        await process.sleep(lateMs);
      }
      // Who has nothing to do for an eager call returns, and meets no other: it can't tell that one of them calls it wrongly.
      const wrong = machine.wrong && (planned.count > 0 || planned.consistency === 'commit');
      if (wrong) machine.wrong = false;
      const timeout = this.#scenario.callTimeoutMs;
      const sleep = this.#scenario.streams === true ? (ms: number) => process.sleep(ms) : null;
      const made = call(group, planned, wrong, { timeout, signal: machine.abort.signal, sleep });
      const outcome = this.#settle(made, process, startedAt);
      outcome.catch(() => {}); // looked at in its turn
      outcomes.push(outcome);
    }
    return outcomes;
  }

  /** Waits for a call; the code of its error, or null. */
  async #settle(made: Call, process: SimProcess, steppedAt: number): Promise<string | null> {
    const { planned, peerId } = made;
    const title = `${planned.kind} ${planned.index} of step ${planned.boundary} on ${peerId}`;
    const startedAt = this.clock.now();
    try {
      const report = await made.outcome;
      if (process.dead) return null;
      this.#oracle.onSuccess(made, report);
      this.#note(`${title} succeeded: ${report.id}, epoch ${report.epoch}, ${report.contributors.join()}`);
      return null;
    } catch (error) {
      if (process.dead) return null;
      if (error instanceof InvariantError) throw error;
      this.#oracle.onFailure(made, codeOf(error));
      // Others may have come in long ago, and waited for it since.
      if (codeOf(error) === 'SKEIN_QUORUM') this.#disturb(this.clock.now());
      // Who has returned from an eager call may have left.
      const isSettled = planned.consistency === 'commit' && steppedAt > this.#settledAt;
      // The root is a rank of the view, which shrinks on one member sooner than on another.
      const mayDiffer = this.#hasWrongCalls || ROOTED.has(planned.kind);
      this.#judge(error, title, isSettled, mayDiffer);
      const elapsed = this.clock.now() - startedAt;
      if (elapsed > this.#scenario.callTimeoutMs + this.#stoppedMs + 10_000)
        this.#fail(`progress: ${title} ended ${elapsed.toFixed(0)} ms after it was called`);
      return codeOf(error);
    }
  }

  /** Whether an error may happen. `isSettled`: by what happened in the storm it can't. `mayDiffer`: others may call it otherwise. */
  #judge(error: unknown, title: string, isSettled = false, mayDiffer = false): void {
    const code = codeOf(error);
    const text = error instanceof Error ? error.message : String(error);
    this.#note(`${title} failed: ${code ?? 'cancelled'}: ${text}`);
    const cancelled = error instanceof Error && error.name === 'AbortError';
    const isExpected = code !== null && EXPECTED_CODES.has(code) && (code !== 'SKEIN_MISMATCH' || mayDiffer);
    if (!cancelled && !isExpected) {
      this.#fail(`defect: ${title} failed with ${error instanceof Error ? (error.stack ?? text) : text}`);
    }
    const isPatient = this.#scenario.callTimeoutMs >= PATIENT_MS;
    if (isPatient && code === 'SKEIN_TIMEOUT')
      this.#fail(`progress: ${title} failed although its user was patient: ${text}`);
    // Whoever comes last may find that the others have gone, and the impatient that the network is slow.
    const isImpatience = !isPatient && (code === 'SKEIN_TIMEOUT' || code === 'SKEIN_WITHDRAWN');
    // Who comes with nothing when the others have gone finds nobody whose state it could take.
    const isForlorn = code === 'SKEIN_QUORUM' || code === 'SKEIN_STATE_LOST';
    if (isSettled && !isImpatience && !isForlorn)
      this.#fail(`progress: ${title} failed although the storm is long over: ${text}`);
  }

  // --- faults ------------------------------------------------------------------------------------------------------

  #machine(index: number): Machine {
    return this.#machines[index % this.#machines.length]!;
  }

  #inflict(fault: TimedFault): void {
    if (this.#calmSince !== null) return;
    this.#note(`FAULT ${JSON.stringify(fault)}`);
    switch (fault.kind) {
      case 'crash': {
        const machine = this.#machine(fault.machine);
        if (machine.process.dead) break;
        this.#kill(machine.process, fault.silent);
        if (fault.restartMs !== null) this.clock.schedule(fault.restartMs, () => this.#boot(machine));
        break;
      }
      case 'stop':
        this.#stop(this.#machine(fault.machine).process, fault.forMs);
        break;
      case 'coordinator-stop':
        this.#stop(this.#coordinator, fault.forMs);
        break;
      case 'coordinator-crash':
        if (this.#coordinator.dead) break;
        this.#kill(this.#coordinator, false);
        this.clock.schedule(fault.restartMs, () => {
          this.#coordinator = new SimProcess('coordinator', this.clock);
          if (!fault.keepsStore) {
            this.#store = new MemoryStore(this.clock, false);
            this.#oracle.onAmnesia();
          }
          void this.#startCoordinator();
        });
        break;
      case 'sluggish': {
        const { process } = this.#machine(fault.machine);
        this.#stoppedMs += fault.forMs;
        process.takeTime(fault.costMs);
        this.clock.schedule(fault.forMs, () => process.takeTime(0));
        break;
      }
      case 'partition':
        this.#block(this.#partition(fault), fault.forMs);
        break;
      case 'block': {
        const [one, other] = [`m${this.#machine(fault.one).index}`, `m${this.#machine(fault.other).index}`];
        this.#block((from, to) => (from === one && to === other) || (from === other && to === one), fault.forMs);
        break;
      }
      case 'cut':
        this.#network.cutBetween(
          this.#machine(fault.one).process.name,
          this.#machine(fault.other).process.name,
          fault.midFrame,
        );
        break;
      case 'cut-control':
        this.#network.cutBetween(this.#machine(fault.machine).process.name, 'coordinator');
        break;
      case 'slow': {
        const rule = this.#slowness(fault);
        this.#slow.add(rule);
        this.#reshape();
        this.clock.schedule(fault.forMs, () => {
          this.#slow.delete(rule);
          this.#reshape();
        });
        break;
      }
      case 'jump':
        this.#machine(fault.machine).process.jump(fault.byMs);
        break;
      case 'join':
        for (let count = 0; count < fault.count && this.#machines.length < MAX_MACHINES; count++) this.#addMachine();
        break;
      case 'leave':
        this.#machine(fault.machine).leaves = true;
        break;
      case 'churn':
        for (let count = 0; count < fault.joins && this.#machines.length < MAX_MACHINES; count++) this.#addMachine();
        for (const index of fault.leaves) this.#machine(index).leaves = true;
        break;
      case 'cancel':
        this.#machine(fault.machine).abort.abort();
        break;
      case 'wrong':
        this.#machine(fault.machine).wrong = true;
        break;
      case 'late':
        this.#machine(fault.machine).lateMs = fault.byMs;
        break;
      default:
        fault satisfies never;
    }
  }

  #partition(fault: Extract<TimedFault, { kind: 'partition' }>): Rule {
    const { shape, coordinatorOnA } = fault;
    const sideA = new Set(fault.sideA.map((index) => this.#machine(index).process.name));
    if (coordinatorOnA) sideA.add('coordinator');
    const bridge = this.#machine(fault.bridge).process.name;
    return (from, to) => {
      if (shape === 'partial' && (from === 'coordinator' || to === 'coordinator')) return false;
      if (shape === 'bridge' && (from === bridge || to === bridge)) return false;
      if (shape === 'asymmetric') return sideA.has(from) && !sideA.has(to);
      return sideA.has(from) !== sideA.has(to);
    };
  }

  #slowness({ machine, peer, direction, weather }: Extract<TimedFault, { kind: 'slow' }>): WeatherRule {
    const { name } = this.#machine(machine).process;
    const other = peer === null ? null : this.#machine(peer).process.name;
    const isIt = (end: string, far: string) => end === name && (other === null || far === other);
    return (from, to) => {
      const isSlow = (direction !== 'receives' && isIt(from, to)) || (direction !== 'sends' && isIt(to, from));
      return isSlow ? weather : null;
    };
  }

  #kill(process: SimProcess, silent: boolean): void {
    process.kill();
    this.#network.down(process, silent);
  }

  #stop(process: SimProcess, forMs: number): void {
    this.#stoppedMs += forMs;
    process.stop();
    this.clock.schedule(forMs, () => process.goOn());
  }

  #block(rule: Rule, forMs: number): void {
    this.#blocks.add(rule);
    this.#reblock();
    this.clock.schedule(forMs, () => {
      this.#blocks.delete(rule);
      this.#reblock();
    });
  }

  #reblock(): void {
    const rules = [...this.#blocks];
    this.#network.block((from, to) => rules.some((rule) => rule(from, to)));
  }

  #reshape(): void {
    const rules = [...this.#slow];
    this.#network.shape((from, to) => {
      for (const rule of rules) {
        const weather = rule(from, to);
        if (weather !== null) return weather;
      }
      return this.#calmSince === null ? null : CALM_WEATHER;
    });
  }

  /** The storm is over: what was stopped goes on, what was parted is together again. */
  #calm(): void {
    this.#calmSince = this.clock.now();
    this.#note('CALM');
    this.#network.spare();
    this.#blocks.clear();
    this.#slow.clear();
    this.#reblock();
    this.#reshape();
    for (const machine of this.#machines) {
      machine.process.takeTime(0);
      machine.process.goOn();
      machine.wrong = false;
      machine.lateMs = 0;
      machine.leaves = false;
    }
    this.#coordinator.goOn();
    this.clock.schedule(this.#settledAt - this.clock.now(), () => {
      this.#stopAfter = this.#lastBoundary + LAST_STEPS;
      this.#note(`everybody stops after boundary ${this.#stopAfter}`);
    });
  }
}

/**
 * Resolves when every promise that can settle has. What is due by `nextTick` in a microtask comes after all microtasks, and
 * without the system calls of a turn of the event loop.
 */
function settled(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve));
}

/** Takes turns until one returns false. Before each, every promise that can settle has. */
function turnByTurn(turn: () => boolean): Promise<void> {
  const now = Promise.resolve();
  return new Promise((resolve, reject) => {
    const wait = () => process.nextTick(next);
    const next = () => {
      try {
        if (turn()) now.then(wait);
        else resolve();
      } catch (error) {
        reject(error);
      }
    };
    wait();
  });
}

function codeOf(error: unknown): string | null {
  return error instanceof SkeinError ? error.code : null;
}

/** Runs a scenario from beginning to end. */
export async function simulate(scenario: Scenario): Promise<Outcome> {
  return new World(scenario, await freshKernels()).run();
}
