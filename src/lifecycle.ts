/**
 * The states of a machine and the steps between them, as a table. A step that is not in the table is a defect, and throws;
 * all others are counted, so that a simulation can tell which of them it never came to.
 */

/** All tables of this thread, by the names of their machines. */
const tables: Map<string, ReadonlyMap<string, Step>> = new Map();

interface Step {
  readonly text: string;
  count: number;
}

export interface StepCount {
  /** `call: running → held`. */
  readonly step: string;
  readonly count: number;
}

export class Lifecycle<S extends string> {
  readonly #name: string;
  readonly #steps: Readonly<Record<string, Readonly<Record<string, Step>>>>;

  /** @param next the states that each state may lead to */
  constructor(name: string, next: Readonly<Record<S, readonly S[]>>) {
    const steps: Record<string, Record<string, Step>> = {};
    const all = new Map<string, Step>();
    for (const [from, targets] of Object.entries<readonly S[]>(next)) {
      const row: Record<string, Step> = {};
      for (const to of targets) {
        const step = { text: `${name}: ${from} → ${to}`, count: 0 };
        row[to] = step;
        all.set(step.text, step);
      }
      steps[from] = row;
    }
    this.#name = name;
    this.#steps = steps;
    tables.set(name, all);
  }

  /** Goes from a state to the next; to stay is no step. */
  step(from: S, to: S): S {
    if (from === to) return to;
    const step = this.#steps[from]?.[to];
    if (step === undefined) throw new Error(`${this.#name} can't go from ${from} to ${to}: this is a defect of Skein.`);
    step.count += 1;
    return to;
  }
}

/** How often each step of each table was taken in this thread. */
export function countSteps(): StepCount[] {
  return [...tables.values()].flatMap((steps) => [...steps.values()].map(({ text, count }) => ({ step: text, count })));
}
