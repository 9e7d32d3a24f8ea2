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
  #weight = 0;

  send(group: Group, plan: Plan): void {
    this.#weight = this.weightIn(plan, group);
    this.take(this.unsent(), this.#weight);
    this.launch(group, plan);
  }

  /** @returns null when nothing was sent, or a final merge has made it void */
  async apply(): Promise<FragmentSync | null> {
    if (this.flight === null) return null;
    const sync = await this.land(this.flight);
    this.remember(sync.outcome);
    if (sync.outcome === 'lost') {
      // A newcomer's first steps never count, not even merged into a later round.
      if (this.#weight === 0) this.goOn(null);
      return sync;
    }
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

  /** Nothing is ever left for later. */
  async finish(): Promise<null> {
    return null;
  }

  protected start(): Float32Array {
    return this.global;
  }
}
