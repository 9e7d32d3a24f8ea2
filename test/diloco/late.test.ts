/** Outer gradients that travel for a round, against the papers' algorithms written down literally, one peer after the other. */
import { expect, test } from 'vitest';
import { createOuterState, type OuterState, outerStep, resolveOuter } from '../../src/diloco/outer.ts';
import { Members } from '../group/members.ts';
import { expectEqualBits, trainee } from './peers.ts';

const PEERS = 3;
const ROUNDS = 6;
const EVERY = 4;
const OUTER = { learningRate: 0.7, momentum: 0.6 } as const;

/** The inner step: towards a target that every peer has for itself. */
const inner = (value: number, rank: number) => Math.fround(value - 0.1 * (value - 10 * (rank + 1)));

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

class Replica {
  start = 0;
  previous = 0;
  readonly #state: OuterState = createOuterState(1);

  /** @returns the outer gradient of a round */
  round(rank: number): number {
    let local = this.start;
    for (let step = 0; step < EVERY; step++) local = inner(local, rank);
    return this.start - local;
  }

  outer(gradient: number): void {
    const parameters = Float32Array.of(this.start);
    outerStep(resolveOuter(OUTER), this.#state, parameters, Float32Array.of(gradient));
    this.start = parameters[0]!;
  }
}

/** Where each peer's rounds began. */
function literally(isEager: boolean): number[][] {
  const replicas = Array.from({ length: PEERS }, () => new Replica());
  return Array.from({ length: ROUNDS }, (_, round) => {
    const gradients = replicas.map((replica, rank) => replica.round(rank));
    const delayed = mean(replicas.map((replica) => replica.previous));
    for (const [rank, replica] of replicas.entries()) {
      const own = isEager ? (gradients[rank]! - replica.previous) / PEERS : 0;
      // With nothing but a delayed gradient there is no step before the first has come.
      if (isEager || round > 0) replica.outer(delayed + own);
      replica.previous = gradients[rank]!;
    }
    return replicas.map((replica) => replica.start);
  });
}

test.each(['later', 'eager'] as const)(
  "apply: '%s' is the paper's algorithm, and the shared part equal on all",
  async (apply) => {
    await using members = await Members.form(PEERS, { engine: 'inline' });
    const trainees = await members.all(async (group, rank) => {
      const one = await trainee(group, { every: EVERY, outer: OUTER, apply });
      const starts: number[] = [];
      while (one.diloco.round < ROUNDS) {
        one.parameters.x[0] = inner(one.parameters.x[0]!, rank);
        if ((await one.diloco.step()).hasEnded) starts.push(one.parameters.x[0]!);
      }
      return { ...one, starts };
    });
    const expected = literally(apply === 'eager');
    for (const [rank, { starts }] of trainees.entries())
      for (const [round, start] of starts.entries()) expect(start).toBeCloseTo(expected[round]![rank]!, 4);
    expectEqualBits(trainees);
    const apart = new Set(trainees.map(({ parameters }) => parameters.x[0])).size;
    expect(apart).toBe(apply === 'eager' ? PEERS : 1);
    await Promise.all(trainees.map(({ diloco }) => diloco.finish()));
    expectEqualBits(trainees);
    expect(new Set(trainees.map(({ parameters }) => parameters.x[0])).size).toBe(1);
  },
);

test("a stale outer gradient doesn't weigh more than a fresh one: CO2's penalty divides it", async () => {
  await using members = await Members.form(2, { engine: 'inline' });
  const moved = async (apply: 'now' | 'later', stalePenalty: number) => {
    const trainees = await members.all(async (group) => {
      const outer = { learningRate: 1, momentum: 0, stalePenalty } as const;
      const one = await trainee(group, { every: 2, outer, apply, wire: { tag: `${apply}${stalePenalty}` } });
      while (one.diloco.round < 1) {
        one.parameters.x[0]! += 1;
        await one.diloco.step();
      }
      await one.diloco.finish();
      return one;
    });
    expectEqualBits(trainees);
    return trainees[0]!.parameters.x[0];
  };
  expect(await moved('now', 4)).toBe(2);
  expect(await moved('later', 1)).toBe(2);
  expect(await moved('later', 4)).toBe(0.5);
});
