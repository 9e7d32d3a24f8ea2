/**
 * A fragment whose mean travels for a whole round, and is applied at its next turn:
 *
 *     turn t   Δ(t) = start(t) − local                 steps of this round
 *              wait for mean Δ(t−1)
 *              global ← OuterStep(global, mean Δ(t−1))
 *              Δ(t) sets out
 *              local, start(t+1) ← global + correction
 *
 * *Delayed* updates have no correction. With *eager* ones (arXiv 2502.12996, algorithm 2) each peer counts its own part at
 * once: its outer optimiser is fed mean Δ(t−1) + share · (Δ(t) − Δ(t−1)), of which the second term is its own affair. An
 * outer step is linear in the gradients, so its response to the two terms can be kept apart: `global` answers to the first
 * and is equal on all peers, the correction to the second and is private, like error feedback.
 */
import type { Group } from '../index.ts';
import type { Plan } from './census.ts';
import { Fragment, type FragmentSync } from './fragment.ts';
import { createOuterState, type OuterState, outerStep } from './outer.ts';

/** What is added to the shared parameters on this peer alone. */
interface Correction {
  state: OuterState;
  readonly values: Float32Array;
  /** share · (own outer gradients that `global` does not contain). */
  readonly outstanding: Float32Array;
}

function add(to: Float32Array, what: Float32Array | null): void {
  if (what !== null) for (let at = 0; at < to.length; at++) to[at] = to[at]! + what[at]!;
}

export class LateFragment extends Fragment {
  /** What came of the last outer gradient; null when it is still on its way, or there was none. */
  #landed: FragmentSync | null = null;
  /** Sent, and lost as far as this peer knows. */
  #lost: Float32Array | null = null;
  /** Lost, and counted by nobody: goes along with the next. */
  #carried: Float32Array | null = null;
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
    this.readLocal();
    const fresh = this.#start().map((value, at) => value - this.local[at]!);
    const sync = await this.#applyLanded();
    // A newcomer's first steps never count, not even merged into a later round.
    if (this.weightIn(plan, group) > 0) this.own.set(fresh);
    else this.own.fill(0);
    add(this.own, this.#carried);
    this.#carried = null;
    this.#correct(this.shareIn(plan, group));
    this.writeLocal(this.#start());
    this.launch(group, plan);
    return sync;
  }

  /** Applies what is still on its way, and drops the correction: all that it stood for is in `global` then. */
  async finish(): Promise<FragmentSync | null> {
    const sync = await this.#applyLanded();
    this.#resetCorrection();
    this.restart(this.#lost === null ? null : this.#lost.map((value) => -value));
    return sync;
  }

  async #applyLanded(): Promise<FragmentSync | null> {
    await this.settle();
    const sync = this.#landed;
    this.#landed = null;
    if (sync?.outcome === 'applied') outerStep(this.settings.outer, this.outer, this.global, this.mean, true);
    if (sync?.outcome === 'lost') this.#lost = this.own.slice();
    return sync;
  }

  /** Parameters from which this peer's present steps began. */
  #start(): Float32Array {
    const correction = this.#correction?.values;
    return correction === undefined ? this.global.slice() : this.global.map((value, at) => value + correction[at]!);
  }

  #correct(share: number): void {
    if (this.#correction === null) return;
    const { state, values, outstanding } = this.#correction;
    const change = new Float32Array(outstanding.length);
    for (let at = 0; at < change.length; at++) {
      const now = share * (this.own[at]! + (this.#lost?.[at] ?? 0));
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

  confirm(): void {
    if (this.#lost === null) return;
    if (this.#carried === null) this.#carried = this.#lost;
    else add(this.#carried, this.#lost);
    this.#lost = null;
  }

  unsentSteps(): Float32Array {
    this.readLocal();
    const start = this.#start();
    return this.local.map((value, at) => value - start[at]!);
  }

  restart(steps: Float32Array | null): void {
    this.#lost = null;
    this.#resetCorrection();
    this.writeLocal(steps === null ? this.global : steps.map((step, at) => this.global[at]! + step));
  }
}
