/** The comparison: every configuration by the same processes, one after the other. */
import { Crew } from './crew.ts';
import { EVERY, type Method, type Point, type Result } from './task.ts';

export interface Row {
  readonly name: string;
  readonly accuracy: number;
  readonly loss: number;
  /** By all peers together, as measured. */
  readonly bytes: number;
  /** All peers ended with the same bits. */
  readonly areEqual: boolean;
  /** Outer gradients lost and merged. */
  readonly lost: number;
  /** Mean of the peers. */
  readonly curve: readonly Point[];
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

function rowOf(name: string, results: readonly Result[]): Row {
  const last = results.map((result) => result.curve.at(-1)!);
  const longest = Math.min(...results.map((result) => result.curve.length));
  const curve = Array.from({ length: longest }, (_, index): Point => {
    const points = results.map((result) => result.curve[result.curve.length - longest + index]!);
    return {
      step: points[0]!.step,
      bytes: mean(points.map((point) => point.bytes)),
      loss: mean(points.map((point) => point.loss)),
      accuracy: mean(points.map((point) => point.accuracy)),
    };
  });
  return {
    name,
    accuracy: mean(last.map((point) => point.accuracy)),
    loss: mean(last.map((point) => point.loss)),
    bytes: last.reduce((sum, point) => sum + point.bytes, 0),
    areEqual: new Set(results.map((result) => result.hash)).size === 1,
    lost: Math.max(...results.map((result) => result.lost)),
    curve,
  };
}

const SIDES: readonly (readonly [string, Method])[] = [
  ['data-parallel, f32', { kind: 'data-parallel' }],
  ['no communication', { kind: 'alone' }],
  [`DiLoCo, H=${EVERY}, f32`, { kind: 'diloco', codec: 'f32' }],
  [`DiLoCo, H=${EVERY}, bf16`, { kind: 'diloco', codec: 'bf16' }],
];

/** @param onRow called as soon as a side is done */
export async function compare(onRow: (row: Row) => void = () => {}): Promise<{ rows: Row[]; worldSizes: number[] }> {
  await using crew = await Crew.start();
  const rows: Row[] = [];
  const add = (row: Row) => {
    rows.push(row);
    onRow(row);
  };
  for (const [name, method] of SIDES) add(rowOf(name, await crew.run(name, method)));
  const churn = await crew.runUnderChurn('churn', { kind: 'diloco', codec: 'bf16' });
  add(rowOf(`DiLoCo, H=${EVERY}, bf16, two kills and two joins`, churn.results));
  return { rows, worldSizes: churn.worldSizes };
}
