/** Runs of one setting after the other by the same four processes. */
import { Crew } from '../crew/crew.ts';
import { PEERS, type Result, type Setting, type Task } from './task.ts';

export interface CurvePoint {
  readonly step: number;
  /** By one peer, in the mean. */
  readonly bytes: number;
  readonly loss: number;
}

export interface Outcome {
  readonly name: string;
  readonly seed: number;
  readonly rate: number;
  readonly steps: number;
  readonly loss: number;
  /** By one peer, in the mean. */
  readonly bytes: number;
  /** Largest of all peers, in one step. */
  readonly largestBurst: number;
  readonly areEqual: boolean;
  readonly curve: readonly CurvePoint[];
}

function outcomeOf({ name, rate, steps }: Setting, seed: number, results: readonly Result[]): Outcome {
  const curve = results[0]!.curve.map(({ step, loss }, index): CurvePoint => {
    const bytes = results.reduce((sum, result) => sum + result.curve[index]!.bytes, 0) / results.length;
    return { step, bytes, loss: loss ?? Number.NaN };
  });
  const last = curve.at(-1)!;
  return {
    name,
    seed,
    rate,
    steps,
    loss: last.loss,
    bytes: last.bytes,
    largestBurst: Math.max(...results.map((result) => result.largestBurst)),
    areEqual: new Set(results.map((result) => result.hash)).size === 1,
    curve,
  };
}

/** @yields each outcome as soon as it is there */
export async function* runAll(settings: readonly Setting[], seeds: readonly number[]): AsyncGenerator<Outcome> {
  await using crew = await Crew.start<Task, Result>('examples/diloco-text/peer.js', PEERS);
  for (const setting of settings) {
    for (const seed of seeds) {
      const run = `${setting.name} ${setting.rate} ${seed}`;
      const task = { ...setting, run, seed, coordinator: crew.address };
      const results = await Promise.all(
        Array.from({ length: PEERS }, (_, shard) => crew.run(shard, { ...task, shard })),
      );
      yield outcomeOf(setting, seed, results);
    }
  }
}
