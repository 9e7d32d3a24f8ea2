/**
 * A fragment whose mean is applied in its own turn (DiLoCo, arXiv 2311.08105, algorithm 1; with an overlap Streaming DiLoCo,
 * arXiv 2501.18512, algorithm 2):
 *
 *     send    Δ = global − local
 *             … `overlap` inner steps go on …
 *     apply   global ← OuterStep(global, mean Δ)
 *             local  ← mixing · local + (1 − mixing) · global
 *
 * When the mean is lost, both stay as they are: the next Δ contains these steps as well.
 */
import type { Group } from '../index.ts';
import type { Plan } from './census.ts';
import { Fragment, type FragmentSync } from './fragment.ts';
import { outerStep } from './outer.ts';

export class PromptFragment extends Fragment {
  /** The last mean was lost as far as this peer knows; the others may have counted its part. */
  #mayBeCounted = false;
  #weight = 0;

  send(group: Group, plan: Plan): void {
    this.readLocal();
    for (let at = 0; at < this.own.length; at++) this.own[at] = this.global[at]! - this.local[at]!;
    this.#weight = this.weightIn(plan, group);
    this.launch(group, plan);
  }

  async apply(): Promise<FragmentSync> {
    const sync = await this.land(this.flight!); // its turn began with `send`
    if (sync.outcome === 'lost') {
      this.#mayBeCounted = true;
      // A newcomer's first steps never count, not even merged into a later round.
      if (this.#weight === 0) this.restart(null);
      return sync;
    }
    this.#mayBeCounted = false;
    const { outer, mixing } = this.settings;
    outerStep(outer, this.outer, this.global, this.mean);
    this.readLocal();
    for (let at = 0; at < this.local.length; at++)
      this.local[at] = mixing === 0 ? this.global[at]! : mixing * this.local[at]! + (1 - mixing) * this.global[at]!;
    this.writeLocal(this.local);
    return sync;
  }

  shared(): Float32Array[] {
    return [this.global, this.outer.momentum];
  }

  numbers(): number[] {
    return [this.outer.steps];
  }

  takeNumbers([steps]: readonly number[]): void {
    this.outer.steps = steps!;
  }

  /** Between rounds nothing is on its way. */
  async settle(): Promise<void> {}

  confirm(): void {
    this.#mayBeCounted = false;
  }

  unsentSteps(): Float32Array {
    this.readLocal();
    return this.local.map((value, at) => value - this.global[at]! + (this.#mayBeCounted ? this.own[at]! : 0));
  }

  restart(steps: Float32Array | null): void {
    this.#mayBeCounted = false;
    this.writeLocal(steps === null ? this.global : steps.map((step, at) => this.global[at]! + step));
  }
}
