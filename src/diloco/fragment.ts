/**
 * One fragment of the model: the shared parameters and outer optimiser state that all peers hold alike, and the outer gradient
 * that is on its way.
 *
 *     outer gradient  Δ = start − local     what the inner steps changed since `start`, a gradient by its sign
 *     after the mean  global ← OuterStep(global, mean of Δ)
 *
 * When a mean is applied is the affair of the two kinds of fragment: `PromptFragment` and `LateFragment`.
 */
import { type Group, type PeerId, PeerLostError, type Report, type SkeinError, sharedTensor } from '../index.ts';
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
  /** The census found that this peer's state is the leader's: what this peer saw fail was not counted by anybody. */
  abstract confirm(): void;
  /** Before another peer's state is taken over: this peer's steps that no mean contains. */
  abstract unsentSteps(): Float32Array;
  /** After it: goes on from the shared parameters, with `steps`, if any, on top. */
  abstract restart(steps: Float32Array | null): void;

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

  /**
   * The members' weighted mean takes the place of the shared and of the local parameters.
   *
   * @param attempts that may fail
   */
  async merge(group: Group, plan: Plan, attempts: number): Promise<void> {
    // What is on its way is of no use any more: the steps that it stands for are in the local parameters.
    if (this.flight !== null) await this.land(this.flight);
    this.readLocal();
    for (let at = 0; at < this.own.length; at++) this.own[at] = this.global[at]! - this.local[at]!;
    for (let attempt = 1; ; attempt++) {
      this.launch(group, plan, { codec: 'f32' });
      const { outcome, error } = await this.land(this.flight!); // launched just now
      if (outcome === 'applied') break;
      if (attempt === attempts)
        throw error ?? new PeerLostError('Nobody is left whose steps count: train another round.');
    }
    for (let at = 0; at < this.global.length; at++) this.global[at] = this.global[at]! - this.mean[at]!;
    this.outer.steps += 1;
    this.restart(null);
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
