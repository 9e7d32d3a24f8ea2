/**
 * One fragment of the model: the shared parameters and outer optimiser state that all peers hold alike, and the outer gradient
 * that is on its way.
 *
 *     outer gradient  Δ = start − local     what the inner steps changed since `start`, a gradient by its sign
 *     after the mean  global ← OuterStep(global, mean of Δ)
 *
 * When a mean is applied is the affair of the two kinds of fragment: `PromptFragment` and `LateFragment`. Both keep to one
 * account: a step of this peer is in `local − start`, or on its way, or in `global`. Lost ones are put back into the first.
 * What this peer saw of its last outer gradient, and what the others saw, may differ; `adopt` sets that right.
 */
import { type Group, type PeerId, type Report, type SkeinError, sharedTensor } from '../index.ts';
import type { Plan } from './census.ts';
import { isPassing } from './failures.ts';
import { type FragmentLayout, gather, type Parameters, spread } from './layout.ts';
import type { Encoding } from './options.ts';
import { createOuterState, type OuterState, type ResolvedOuter } from './outer.ts';

/** How the communication of a fragment ended, on this peer. */
export interface FragmentSync {
  readonly fragment: number;
  /** `lost`: the collective failed; its steps are part of a later one. */
  readonly outcome: 'applied' | 'lost';
  /** Whose outer gradients the mean is of. */
  readonly contributors: readonly PeerId[];
  readonly bytesSent: number;
  /** Why it was lost; undefined too where nobody's contribution counts. */
  readonly error: SkeinError | undefined;
}

export interface FragmentSettings {
  readonly index: number;
  readonly layout: FragmentLayout;
  readonly encoding: Encoding;
  readonly tag: string;
  readonly outer: ResolvedOuter;
  readonly mixing: number;
  /** Handed on to the collective. */
  readonly call: { readonly timeout?: number; readonly minWorldSize?: number };
  /** Is told of every collective that succeeded. */
  readonly onReport: (report: Report) => void;
}

type Outcome = { readonly ok: true; readonly report: Report } | { readonly ok: false; readonly error: SkeinError };

/** The members' weights when an outer gradient set out. */
interface Weighing {
  readonly weights: ReadonlyMap<PeerId, number>;
  readonly heaviest: number;
  /** All weigh the same: the plain mean. */
  readonly isEven: boolean;
}

export interface Flight {
  readonly outcome: Promise<Outcome>;
  readonly weighing: Weighing;
}

function weigh(plan: Plan): Weighing {
  const all = [...plan.weights.values()];
  const heaviest = Math.max(...all);
  const isEven = heaviest > 0 && all.every((weight) => weight === heaviest);
  return { weights: plan.weights, heaviest, isEven };
}

/** to ← to + factor · what */
export function addTo(to: Float32Array, what: Float32Array, factor: number): void {
  for (let at = 0; at < to.length; at++) to[at] = to[at]! + factor * what[at]!;
}

export abstract class Fragment {
  /** The shared parameters, flat. */
  readonly global: Float32Array;
  readonly outer: OuterState;
  /** The mean that came back last. */
  readonly mean: Float32Array;
  protected readonly settings: FragmentSettings;
  /** This peer's outer gradient that was sent last, not weighted. */
  protected readonly own: Float32Array;
  /** Room for this peer's parameters, flat. */
  protected readonly local: Float32Array;
  protected flight: Flight | null = null;
  /** The outer gradient that was applied or lost last, and which of the two, as this peer saw it; null once a census agreed. */
  protected readonly latest: Float32Array;
  #outcome: FragmentSync['outcome'] | null = null;
  readonly #parameters: Parameters;
  /** What travels. Like `mean` in shared memory, so that it crosses to the engine without a copy. */
  readonly #wire: Float32Array;

  constructor(settings: FragmentSettings, parameters: Parameters) {
    const { count } = settings.layout;
    this.settings = settings;
    this.#parameters = parameters;
    this.global = new Float32Array(count);
    gather(parameters, settings.layout, this.global);
    this.outer = createOuterState(count);
    this.mean = sharedTensor('f32', count);
    this.#wire = sharedTensor('f32', count);
    this.own = new Float32Array(count);
    this.local = new Float32Array(count);
    this.latest = new Float32Array(count);
  }

  get layout(): FragmentLayout {
    return this.settings.layout;
  }

  /** What of this fragment newcomers are given; received in place. */
  abstract shared(): Float32Array[];
  /** Numbers that go along with it. */
  abstract numbers(): number[];
  abstract takeNumbers(numbers: readonly number[]): void;
  /** Waits for what is on its way, without applying it, so that it can be handed on. */
  abstract settle(): Promise<void>;
  /** Applies what is on its way to be applied later. @returns null when there is none */
  abstract finish(): Promise<FragmentSync | null>;
  /** Parameters from which this peer's present steps began. */
  protected abstract start(): Float32Array;

  /** This peer's steps that are neither on their way nor in a mean, as far as it knows. */
  unsent(): Float32Array {
    this.readLocal();
    const start = this.start();
    return this.local.map((value, at) => value - start[at]!);
  }

  /** The census found that this peer's state is the leader's: what it saw of its last outer gradient is so for all. */
  confirm(): void {
    this.#outcome = null;
  }

  /**
   * The leader's tensors have taken the place of this peer's.
   *
   * @param numbers that came along
   * @param unsent what `unsent()` said before; null in a newcomer, whose parameters don't count
   */
  adopt(numbers: readonly number[], unsent: Float32Array | null): void {
    const ahead = numbers[0]! - this.outer.steps; // a fragment's first number is that of its outer steps
    this.takeNumbers(numbers);
    if (unsent !== null) {
      // Put back as lost, but the leader's state contains it; or thought to be contained, and the leader's does without.
      if (this.#outcome === 'lost' && ahead > 0) addTo(unsent, this.latest, 1);
      if (this.#outcome === 'applied' && ahead < 0) addTo(unsent, this.latest, -1);
    }
    this.#outcome = null;
    this.goOn(unsent);
  }

  /** From the shared parameters, with `steps`, if any, on top. */
  goOn(steps: Float32Array | null): void {
    this.writeLocal(steps === null ? this.global : steps.map((step, at) => this.global[at]! + step));
  }

  /** Begins anew from a saved state; nothing may be on its way. */
  load(parameters: Float32Array, momentum: Float32Array, steps: number): void {
    this.global.set(parameters);
    this.outer.momentum.set(momentum);
    this.outer.steps = steps;
    this.own.fill(0);
    this.#outcome = null;
    this.goOn(null);
  }

  /** What became of `own`, which may soon hold the next. */
  protected remember(outcome: FragmentSync['outcome']): void {
    this.latest.set(this.own);
    this.#outcome = outcome;
  }

  /** `unsent` becomes the outer gradient, with the sign of one. A newcomer's first steps never count: zeros, whatever becomes of it. */
  protected take(unsent: Float32Array, weight: number): void {
    if (weight > 0) for (let at = 0; at < this.own.length; at++) this.own[at] = -unsent[at]!;
    else this.own.fill(0);
  }

  /** Reads this peer's parameters into `local`. */
  protected readLocal(): void {
    gather(this.#parameters, this.settings.layout, this.local);
  }

  /** Makes `values` this peer's parameters. */
  protected writeLocal(values: Float32Array): void {
    spread(values, this.settings.layout, this.#parameters);
  }

  protected weightIn(plan: Plan, group: Group): number {
    return plan.weights.get(group.peerId) ?? 0;
  }

  /** This peer's part of what a plan's weights add up to. */
  protected shareIn(plan: Plan, group: Group): number {
    const total = [...plan.weights.values()].reduce((sum, weight) => sum + weight, 0);
    return total === 0 ? 0 : this.weightIn(plan, group) / total;
  }

  /** `own` sets out. Returns at once; `land` waits for the mean. */
  protected launch(group: Group, plan: Plan, encoding: Encoding = this.settings.encoding): void {
    const { tag, call } = this.settings;
    const weighing = weigh(plan);
    const factor = weighing.isEven ? 1 : this.weightIn(plan, group) / weighing.heaviest;
    // Not a product: 0 · NaN would carry a newcomer's NaN into the mean.
    if (factor > 0) for (let at = 0; at < this.own.length; at++) this.#wire[at] = factor * this.own[at]!;
    else this.#wire.fill(0);
    const options = { op: weighing.isEven ? 'avg' : 'sum', ...encoding, tag, out: this.mean, ...call } as const;
    const outcome = group.allReduce(this.#wire, options).then(
      (report): Outcome => ({ ok: true, report }),
      (error: unknown): Outcome => {
        if (isPassing(error)) return { ok: false, error };
        throw error;
      },
    );
    // Whoever lands it gets the error; until then it must not count as unhandled.
    outcome.catch(() => {});
    this.flight = { outcome, weighing };
  }

  /** The members' weighted mean takes the place of the shared and of the local parameters, unless the call fails. */
  async merge(group: Group, plan: Plan): Promise<FragmentSync> {
    // What is on its way is of no use any more: the steps that it stands for are in the local parameters.
    if (this.flight !== null) await this.land(this.flight);
    this.take(this.unsent(), this.weightIn(plan, group));
    this.launch(group, plan, { codec: 'f32' });
    const sync = await this.land(this.flight!); // launched just now
    this.remember(sync.outcome);
    if (sync.outcome === 'lost') return sync;
    addTo(this.global, this.mean, -1);
    this.outer.steps += 1;
    this.goOn(null);
    return sync;
  }

  /** Waits for the mean; afterwards it is in `mean`, unless it was lost. */
  protected async land(flight: Flight): Promise<FragmentSync> {
    const { index: fragment } = this.settings;
    const outcome = await flight.outcome;
    this.flight = null;
    if (!outcome.ok) return { fragment, outcome: 'lost', contributors: [], bytesSent: 0, error: outcome.error };
    this.settings.onReport(outcome.report);
    const { contributors, bytesSent } = outcome.report;
    const counts = this.#normalise(flight.weighing, contributors);
    return { fragment, outcome: counts ? 'applied' : 'lost', contributors, bytesSent, error: undefined };
  }

  /** From the weighted sum to the weighted mean over exactly those who contributed. @returns whether anybody counts */
  #normalise({ weights, heaviest, isEven }: Weighing, contributors: readonly PeerId[]): boolean {
    if (isEven) return true;
    const total = contributors.reduce((sum, peerId) => sum + (weights.get(peerId) ?? 0), 0);
    if (total === 0) return false;
    const scale = heaviest / total;
    for (let at = 0; at < this.mean.length; at++) this.mean[at] = this.mean[at]! * scale;
    return true;
  }
}
