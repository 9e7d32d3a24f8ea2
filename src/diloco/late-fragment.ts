/**
 * A fragment whose mean travels for a whole round, and is applied at its next turn:
 *
 *     turn t   Δ(t) = start(t) − local                 steps of this round
 *              wait for mean Δ(t−1)
 *              global ← OuterStep(global, mean Δ(t−1))
 *              Δ(t) sets out
 *              local, start(t+1) ← global + correction
 *
 * When mean Δ(t−1) is lost, this peer's part of it is put back on top of the local parameters, so that Δ(t+1) contains it.
 *
 * *Delayed* updates have no correction. With *eager* ones (arXiv 2502.12996, algorithm 2) each peer counts its own part at
 * once: its outer optimiser is fed mean Δ(t−1) + share · (Δ(t) − Δ(t−1)), of which the second term is its own affair. An
 * outer step is linear in the gradients, so its response to the two terms can be kept apart: `global` answers to the first
 * and is equal on all peers, the correction to the second and is private, like error feedback.
 */
import type { Group } from '../index.ts';
import type { Plan } from './census.ts';
import { addTo, Fragment, type FragmentSync } from './fragment.ts';
import { createOuterState, type OuterState, outerStep } from './outer.ts';

/** What is added to the shared parameters on this peer alone. */
interface Correction {
  state: OuterState;
  readonly values: Float32Array;
  /** share · (own outer gradient that is on its way). */
  readonly outstanding: Float32Array;
}

export class LateFragment extends Fragment {
  /** What came of the last outer gradient; null when it is still on its way, or there was none. */
  #landed: FragmentSync | null = null;
  readonly #correction: Correction | null;

  constructor(isEager: boolean, ...rest: ConstructorParameters<typeof Fragment>) {
    super(...rest);
    const { length } = this.global;
    this.#correction = isEager
      ? { state: createOuterState(length), values: new Float32Array(length), outstanding: new Float32Array(length) }
      : null;
  }

  /** @returns what became of the outer gradient of the turn before; null at the first turn */
  async turn(group: Group, plan: Plan): Promise<FragmentSync | null> {
    const fresh = this.unsent();
    const sync = await this.#applyLanded();
    this.take(fresh, this.weightIn(plan, group));
    this.#correct(this.shareIn(plan, group));
    this.#writeStart(sync);
    this.launch(group, plan);
    return sync;
  }

  /** The correction is dropped: all that it stood for is in `global` then. Steps that were not sent stay on top. */
  async finish(): Promise<FragmentSync | null> {
    const rest = this.unsent();
    const sync = await this.#applyLanded();
    this.#resetCorrection();
    this.#writeStart(sync, rest);
    return sync;
  }

  async #applyLanded(): Promise<FragmentSync | null> {
    await this.settle();
    const sync = this.#landed;
    this.#landed = null;
    if (sync === null) return null;
    this.remember(sync.outcome);
    if (sync.outcome === 'applied') outerStep(this.settings.outer, this.outer, this.global, this.mean, true);
    return sync;
  }

  /** Where the next steps begin, with `rest` and what was lost just now on top. */
  #writeStart(sync: FragmentSync | null, rest: Float32Array | null = null): void {
    const start = this.start().slice();
    if (rest !== null) addTo(start, rest, 1);
    if (sync?.outcome === 'lost') addTo(start, this.latest, -1);
    this.writeLocal(start);
  }

  protected start(): Float32Array {
    const correction = this.#correction?.values;
    return correction === undefined ? this.global : this.global.map((value, at) => value + correction[at]!);
  }

  #correct(share: number): void {
    if (this.#correction === null) return;
    const { state, values, outstanding } = this.#correction;
    const change = new Float32Array(outstanding.length);
    for (let at = 0; at < change.length; at++) {
      const now = share * this.own[at]!;
      change[at] = now - outstanding[at]!;
      outstanding[at] = now;
    }
    outerStep(this.settings.outer, state, values, change);
  }

  #resetCorrection(): void {
    if (this.#correction === null) return;
    this.#correction.state = createOuterState(this.global.length);
    this.#correction.values.fill(0);
    this.#correction.outstanding.fill(0);
  }

  shared(): Float32Array[] {
    return [this.global, this.outer.momentum, this.mean];
  }

  /** Steps, and whether `mean` waits to be applied. */
  numbers(): number[] {
    return [this.outer.steps, this.#landed === null ? 0 : this.#landed.outcome === 'applied' ? 1 : 2];
  }

  takeNumbers([steps, landed]: readonly number[]): void {
    this.outer.steps = steps!;
    this.flight = null;
    const known = { fragment: this.settings.index, contributors: [], bytesSent: 0, error: undefined };
    this.#landed = landed === 0 ? null : { ...known, outcome: landed === 1 ? 'applied' : 'lost' };
  }

  async settle(): Promise<void> {
    if (this.flight !== null) this.#landed = await this.land(this.flight);
  }

  override goOn(steps: Float32Array | null): void {
    this.#resetCorrection();
    super.goOn(steps);
  }

  override load(...state: Parameters<Fragment['load']>): void {
    this.#landed = null;
    super.load(...state);
  }
}
