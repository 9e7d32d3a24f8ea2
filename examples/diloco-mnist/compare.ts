/** The comparison: every configuration by the same processes, one after the other. */
import { Crew } from '../crew/crew.ts';
import { EVERY, type Method, PEERS, type Point, type Result, type Task } from './task.ts';

const PEER = 'examples/diloco-mnist/peer.js';

/** Rounds after which a peer is killed, and its successor started. */
const KILLS = [2, 5];

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
  [`DiLoCo, H=${EVERY}, f32`, { kind: 'diloco', codec: 'f32', errorFeedback: false }],
  [`DiLoCo, H=${EVERY}, int8`, { kind: 'diloco', codec: 'int8', errorFeedback: false }],
  [`DiLoCo, H=${EVERY}, int4`, { kind: 'diloco', codec: 'int4', errorFeedback: false }],
  [`DiLoCo, H=${EVERY}, int4, error feedback`, { kind: 'diloco', codec: 'int4', errorFeedback: true }],
];

type DigitCrew = Crew<Task, Result>;

/** All peers do the same; results by shard. */
function runCalmly(crew: DigitCrew, name: string, method: Method): Promise<Result[]> {
  const task = { name, method, peers: PEERS, coordinator: crew.address };
  return Promise.all(Array.from({ length: PEERS }, (_, shard) => crew.run(shard, { ...task, shard })));
}

/** The same while two peers are killed, each followed by a newcomer that learns from the same images. */
async function runUnderChurn(crew: DigitCrew, name: string, method: Method) {
  const worldSizes: number[] = [];
  const results: Promise<Result>[] = [];
  const pending = [...KILLS];
  const start = (shard: number, peers: number) => {
    const task = { name, method, peers, shard, coordinator: crew.address };
    results[shard] = crew.run(shard, task, ({ round, worldSize }) => {
      if (shard !== 0) return;
      worldSizes.push(worldSize);
      if (round !== pending[0]) return;
      const victim = pending.length;
      pending.shift();
      results[victim]?.catch(() => {}); // it is about to die
      crew.replace(victim);
      start(victim, 1);
    });
  };
  for (let shard = 0; shard < PEERS; shard++) start(shard, PEERS);
  // The first peer outlives all disturbances; the others' latest results are those of whoever ended in their place.
  await results[0];
  return { results: await Promise.all(results), worldSizes };
}

/** @param onRow called as soon as a side is done */
export async function compare(onRow: (row: Row) => void = () => {}): Promise<{ rows: Row[]; worldSizes: number[] }> {
  await using crew: DigitCrew = await Crew.start(PEER, PEERS);
  const rows: Row[] = [];
  const add = (row: Row) => {
    rows.push(row);
    onRow(row);
  };
  crew.addSpares(KILLS.length);
  for (const [name, method] of SIDES) add(rowOf(name, await runCalmly(crew, name, method)));
  const churn = await runUnderChurn(crew, 'churn', { kind: 'diloco', codec: 'int4', errorFeedback: false });
  add(rowOf(`DiLoCo, H=${EVERY}, int4, two kills and two joins`, churn.results));
  return { rows, worldSizes: churn.worldSizes };
}
