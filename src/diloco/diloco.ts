/**
 * DiLoCo and its family on top of a `Group`: peers train alone for a round of inner steps, then average what these changed,
 * and take an outer step with it (arXiv 2311.08105). Everything that all peers must hold alike (parameters, outer
 * optimiser, number of the round) changes only by what every member gets with the same bits.
 *
 * A round on one peer (three fragments, an overlap; with `apply: 'later'` a turn sends, and applies what was sent a round ago):
 *
 *     open    boundary: newcomers come in; census: who is behind, steps and weights of each; state for whoever is behind
 *     steps   1 ── send 0 ── apply 0 ── send 1 ── apply 1 ── send 2 ── apply 2      a peer's turns are parts of its own count
 *
 * Every peer makes the same collectives in the same order, whatever fails: a call that fails is not made again, its steps go
 * along with a later one. So the numbers by which calls are matched agree, and nothing is ever added twice. Should one
 * peer see a call fail that succeeded for the others, the next census finds that its state differs, and it is given theirs.
 */
import { type Group, PeerLostError, type Report } from '../index.ts';
import { Boundary } from './boundary.ts';
import { type Bounds, type Entry, makePlan, NEWCOMER, type Plan, takeCensus } from './census.ts';
import { ATTEMPTS, insist } from './failures.ts';
import { fingerprint } from './fingerprint.ts';
import type { FragmentSync } from './fragment.ts';
import { LateFragment } from './late-fragment.ts';
import { cutIntoFragments, type Parameters, spread } from './layout.ts';
import { boundsOf, type DilocoOptions, type ResolvedDiloco, resolveDiloco } from './options.ts';
import { Stopwatch } from './pace.ts';
import { PromptFragment } from './prompt-fragment.ts';
import type { DilocoState, StepReport, Totals } from './reports.ts';

/**
 * Prepares DiLoCo training. To be called right after `join()`, on every member: a newcomer is given the shared parameters here.
 *
 * @param parameters the model's, by name; `Float32Array`s of any length, the same on all peers. They are read and written
 * in place. Where peers begin with different values, those of rank 0 are taken.
 * @throws ArgumentError, and what `group.admit` and `group.allGather` throw
 * @example
 * const diloco = await createDiloco(group, { weights, biases }, { every: 50, wire: { codec: 'bf16' } });
 * while (diloco.round < 100) {
 *   innerStep(); // changes weights and biases
 *   await diloco.step();
 * }
 */
export async function createDiloco(group: Group, parameters: Parameters, options: DilocoOptions = {}): Promise<Diloco> {
  const diloco = new Diloco(group, parameters, resolveDiloco(options));
  await diloco.open();
  return diloco;
}

export class Diloco {
  readonly totals: Totals = { lost: 0, bytesSent: 0, bytesReceived: 0, largestBytesSent: 0 };
  readonly #group: Group;
  readonly #parameters: Parameters;
  readonly #options: ResolvedDiloco;
  readonly #fragments: readonly (PromptFragment | LateFragment)[];
  readonly #watch: Stopwatch;
  #round = 0;
  #isNewcomer = true;
  /** Of the round that is under way; null before it is opened. */
  #plan: Plan | null = null;
  readonly #boundary: Boundary;
  #stepsDone = 0;
  /** What the next call of `step()` that returns has to tell. */
  #unreported: { hasEnded: boolean; synced: FragmentSync[] } = { hasEnded: false, synced: [] };

  /** @internal use `createDiloco()` */
  constructor(group: Group, parameters: Parameters, options: ResolvedDiloco) {
    this.#group = group;
    this.#parameters = parameters;
    this.#options = options;
    this.#watch = new Stopwatch(options.now);
    this.#boundary = new Boundary(group, options.call);
    const { count, pattern, mixing } = options.fragments;
    this.#fragments = cutIntoFragments(parameters, count, pattern).map((layout, index) => {
      const { outer, call, encodings, apply } = options;
      const onReport = (report: Report) => this.#count(report);
      const tag = `${options.tag}/${index}`;
      const settings = { index, layout, encoding: encodings[index]!, tag, outer, mixing, call, onReport };
      return apply === 'now'
        ? new PromptFragment(settings, parameters)
        : new LateFragment(apply === 'eager', settings, parameters);
    });
    boundsOf(options, 0);
  }

  /** Rounds done. A newcomer begins with that of the others. */
  get round(): number {
    return this.#round;
  }

  /** Inner steps of this peer in the present round. */
  get stepsInRound(): number {
    return this.#plan?.steps.get(this.#group.peerId) ?? 0;
  }

  /** What this peer's outer gradients weigh in the present round, in samples; 0 in a newcomer's first. */
  get weight(): number {
    return this.#plan?.weights.get(this.#group.peerId) ?? 0;
  }

  /** Of the shared parameters and the outer momentum: equal on peers whose bits are. */
  get hash(): number {
    return fingerprint(this.#fragments.flatMap((fragment) => [fragment.global, fragment.outer.momentum]));
  }

  /**
   * To be awaited after every inner step. Most return at once; some communicate.
   *
   * @returns what was communicated
   * @throws EvictedError, ClosedError, …: the training is over for this peer. TimeoutError, QuorumError, … when the next
   * round could not be opened: nothing is lost, and the next call tries again, and tells what this one would have told.
   */
  async step(): Promise<StepReport> {
    this.#watch.stop();
    if (this.#plan !== null) await this.#advance(this.#plan);
    if (this.#plan === null) await this.open();
    this.#watch.start();
    const report = { round: this.#round, ...this.#unreported };
    this.#unreported = { hasEnded: false, synced: [] };
    return report;
  }

  async #advance(plan: Plan): Promise<void> {
    const { synced } = this.#unreported;
    this.#stepsDone += 1;
    for (const [index, fragment] of this.#fragments.entries())
      this.#note(await this.#turn(plan, index, fragment), synced);
    if (this.#stepsDone < this.stepsInRound) return;
    this.#round += 1;
    this.#plan = null;
    this.#boundary.approach();
    this.#unreported.hasEnded = true;
  }

  async #turn(plan: Plan, index: number, fragment: PromptFragment | LateFragment): Promise<FragmentSync | null> {
    const { count, overlap } = this.#options.fragments;
    const at = Math.floor((this.stepsInRound * (index + 1)) / count);
    if (fragment instanceof LateFragment) return this.#stepsDone === at ? fragment.turn(this.#group, plan) : null;
    if (this.#stepsDone === at - overlap) fragment.send(this.#group, plan);
    return this.#stepsDone === at ? fragment.apply() : null;
  }

  #note(sync: FragmentSync | null, synced: FragmentSync[]): void {
    if (sync === null) return;
    synced.push(sync);
    if (sync.outcome === 'lost') this.totals.lost += 1;
  }

  /**
   * To be called on every member, after the last round: applies what is still on its way (`apply: 'later'` and `'eager'`). Then
   * `shared()` contains all that was sent, and this peer's parameters are these with its own steps on top that no mean
   * contains: those since a fragment's last turn, and those whose communication was lost. Where there are any, peers
   * differ by them, until `finalMerge()`, or another round. May be called twice.
   */
  async finish(): Promise<StepReport> {
    const synced: FragmentSync[] = [];
    for (const fragment of this.#fragments) this.#note(await fragment.finish(), synced);
    return { round: this.#round, hasEnded: false, synced };
  }

  /**
   * To be called on every member: `finish()`, then the peers' parameters are replaced by their weighted mean, without outer
   * optimiser ("A Single Merging Suffices", arXiv 2507.06542): at the end of a run whose rounds were few, or lost. In f32,
   * whatever the codec. Returns when a census has shown that all members have the mean.
   *
   * @throws the error of the last attempt when it failed several times. No step is lost then: call it again, or train on.
   */
  async finalMerge(): Promise<void> {
    await this.finish();
    const agreed = await this.#agree();
    const plan = this.#plan ?? agreed; // of a round that is under way, as a newcomer's first has weight 0
    const merged = this.#fragments.map(({ outer }) => outer.steps + 1);
    for (let attempt = 1; ; attempt++) {
      let failure: FragmentSync | null = null;
      for (const [index, fragment] of this.#fragments.entries()) {
        if (fragment.outer.steps === merged[index]) continue;
        const sync = await fragment.merge(this.#group, plan);
        if (sync.outcome === 'lost') failure = sync;
      }
      // Whoever saw a merge succeed must not leave before all have its result: who is left alone would merge with itself.
      while ((await this.#agree()).behind.size > 0);
      if (this.#fragments.every(({ outer }, index) => outer.steps === merged[index])) return;
      if (attempt === ATTEMPTS)
        throw failure?.error ?? new PeerLostError('Nobody is left whose steps count: train another round.');
    }
  }

  /** Copies of the shared parameters, by name; with mixing, eager updates or in the middle of a round they differ from the local ones. */
  shared(): Record<string, Float32Array> {
    const copies = Object.fromEntries(
      Object.entries(this.#parameters).map(([name, array]) => [name, new Float32Array(array.length)]),
    );
    for (const fragment of this.#fragments) spread(fragment.global, fragment.layout, copies);
    return copies;
  }

  /** The shared state as plain data, to be saved. What is on its way is not part of it: `finish()` first. */
  state(): DilocoState {
    const fragments = this.#fragments.map(({ global, outer }) => ({
      parameters: global.slice(),
      momentum: outer.momentum.slice(),
      steps: outer.steps,
    }));
    return { round: this.#round, fragments };
  }

  /**
   * Goes on from a saved state: on every peer, before its first step, with the same parameters and fragments. The round
   * that it was saved in begins.
   *
   * @throws what `group.allGather` throws
   */
  async restore(state: DilocoState): Promise<void> {
    this.#plan = null;
    this.#round = state.round;
    await Promise.all(this.#fragments.map((fragment) => fragment.settle()));
    for (const [index, fragment] of this.#fragments.entries()) {
      const { parameters, momentum, steps } = state.fragments[index]!;
      fragment.load(parameters, momentum, steps);
    }
    await this.open();
  }

  // --- between rounds ----------------------------------------------------------------------------------------------

  /** @internal Opens the next round. When it fails it may be called again. */
  async open(): Promise<void> {
    await this.#boundary.pass();
    this.#plan = await this.#agree();
    this.#stepsDone = 0;
    this.#watch.start();
  }

  /** Census, and state for whoever is behind, until both succeed. */
  #agree(): Promise<Plan> {
    const speed = this.#watch.take();
    return insist(async () => {
      const plan = await this.#takePlan(speed);
      if (plan.behind.size > 0) await this.#share(plan);
      if (!plan.behind.has(this.#group.peerId)) for (const fragment of this.#fragments) fragment.confirm();
      this.#isNewcomer = false;
      return plan;
    });
  }

  async #takePlan(speed: number): Promise<Plan> {
    const steps = this.#fragments.reduce((sum, fragment) => sum + fragment.outer.steps, 0);
    const version = this.#isNewcomer ? NEWCOMER : steps;
    const entry: Entry = { version, hash: this.hash, samples: this.#options.samples, round: this.#round, speed };
    const call = { tag: this.#tag, ...this.#options.call };
    const { entries, report } = await takeCensus(this.#group, entry, call);
    this.#count(report);
    return makePlan(entries, (round): Bounds => boundsOf(this.#options, round));
  }

  /** Of the census and of what follows it: one for both, see `insist`. */
  get #tag(): string {
    return `${this.#options.tag}/census`;
  }

  /** The leader's state, on every member. */
  async #share(plan: Plan): Promise<void> {
    const isBehind = plan.behind.has(this.#group.peerId);
    await Promise.all(this.#fragments.map((fragment) => fragment.settle()));
    // Before the leader's tensors take the place of this peer's.
    const unsent = this.#fragments.map((fragment) => (isBehind && !this.#isNewcomer ? fragment.unsent() : null));
    const numbers = Float32Array.of(this.#round, ...this.#fragments.flatMap((fragment) => fragment.numbers()));
    const state = [numbers, ...this.#fragments.flatMap((fragment) => fragment.shared())];
    const options = { root: plan.leader, tag: this.#tag, ...this.#options.call };
    this.#count(await this.#group.broadcast(state, options));
    if (!isBehind) return;
    this.#round = numbers[0]!;
    let at = 1;
    for (const [index, fragment] of this.#fragments.entries()) {
      const count = fragment.numbers().length;
      fragment.adopt([...numbers.subarray(at, at + count)], unsent[index]!);
      at += count;
    }
  }

  #count({ bytesSent, bytesReceived }: Report): void {
    this.totals.bytesSent += bytesSent;
    this.totals.bytesReceived += bytesReceived;
    this.totals.largestBytesSent = Math.max(this.totals.largestBytesSent, bytesSent);
  }
}
