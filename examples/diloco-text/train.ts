/** Training on text, data-parallel or with DiLoCo. */
import { createHash } from 'node:crypto';
import { createDiloco } from '../../src/diloco/index.ts';
import { type Group, join } from '../../src/index.ts';
import { AdamW, seededRandom } from '../mnist/model.ts';
import { accumulateGradient, CONTEXT, evaluate, initialParameters, layers, PARAMETERS } from './model.ts';
import { BATCH, EXAMINE_EVERY, PEERS, type Point, type Result, type Task } from './task.ts';
import type { Book } from './text.ts';

/** Of the test characters, at each point of the curve. */
const EXAMINE_STRIDE = 29;

/** One peer's model, inner optimiser and part of the book. */
class Learner {
  readonly parameters: Float32Array;
  readonly gradient: Float32Array = new Float32Array(PARAMETERS);
  readonly #optimizer: AdamW = new AdamW(PARAMETERS);
  readonly #text: Uint8Array;
  readonly #random: () => number;
  readonly #task: Task;
  #updates = 0;

  constructor(task: Task, text: Uint8Array) {
    this.#task = task;
    this.#text = text;
    this.#random = seededRandom(1_000 * task.seed + task.shard);
    this.parameters = initialParameters(task.seed);
  }

  /** The mean gradient of a batch. */
  backward(): void {
    this.gradient.fill(0);
    for (let one = 0; one < BATCH; one++) {
      const at = CONTEXT + Math.floor(this.#random() * (this.#text.length - CONTEXT));
      accumulateGradient(this.parameters, this.#text, at, this.gradient);
    }
    for (let at = 0; at < PARAMETERS; at++) this.gradient[at]! /= BATCH;
  }

  update(): void {
    const { rate, steps } = this.#task;
    this.#optimizer.rate = rate * (1 - (0.9 * this.#updates) / steps);
    this.#updates += 1;
    this.#optimizer.update(this.parameters, this.gradient, this.#updates);
  }
}

/** Follows what training costs, and how good it is. */
class Record {
  readonly curve: Point[] = [];
  largestBurst = 0;
  #bytes = 0;
  readonly #examine: () => number;
  readonly #isExaminer: boolean;

  constructor(isExaminer: boolean, examine: () => number) {
    this.#isExaminer = isExaminer;
    this.#examine = examine;
  }

  /**
   * @param bytes that were sent so far
   * @param ahead of these, what left since the last step in steps before this one, as it overlapped with them
   */
  note(step: number, bytes: number, ahead = 0): void {
    this.largestBurst = Math.max(this.largestBurst, ahead, bytes - this.#bytes - ahead);
    this.#bytes = bytes;
    if (step % EXAMINE_EVERY === 0) this.curve.push({ step, bytes, loss: this.#isExaminer ? this.#examine() : null });
  }
}

/** By the ring, which sends the fewest bytes. */
async function dataParallel(group: Group, task: Task, learner: Learner, record: Record): Promise<void> {
  let bytes = 0;
  for (let step = 1; step <= task.steps; step++) {
    learner.backward();
    bytes += (await group.allReduce(learner.gradient, { op: 'avg', algorithm: 'ring' })).bytesSent;
    learner.update();
    record.note(step, bytes);
  }
}

/** Joins the task's run, trains, leaves. */
export async function train(task: Task, book: Book): Promise<Result> {
  const learner = new Learner(task, book.shards[task.shard]!);
  await using group = await join(task.coordinator, { run: task.run, startWorldSize: PEERS, timeout: 60_000 });
  const isExaminer = task.shard === 0;
  if (task.diloco === null) {
    const record = new Record(isExaminer, () => evaluate(learner.parameters, book.test, EXAMINE_STRIDE));
    await dataParallel(group, task, learner, record);
    return resultOf(learner.parameters, record);
  }
  const diloco = await createDiloco(group, layers(learner.parameters), task.diloco);
  const overlap = task.diloco.fragments?.overlap ?? 0;
  // What the peers hold in common is what is examined: it may differ from the local parameters.
  const shared = () => Float32Array.from(Object.values(diloco.shared()).flatMap((layer) => [...layer]));
  const record = new Record(isExaminer, () => evaluate(shared(), book.test, EXAMINE_STRIDE));
  for (let step = 1; step <= task.steps; step++) {
    learner.backward();
    learner.update();
    const { synced } = await diloco.step();
    // Without an overlap a fragment leaves together with what opens the next round.
    const fragments = synced.reduce((sum, { bytesSent }) => sum + bytesSent, 0);
    record.note(step, diloco.totals.bytesSent, overlap > 0 ? fragments : 0);
  }
  await diloco.finish();
  return resultOf(shared(), record);
}

function resultOf(parameters: Float32Array, { curve, largestBurst }: Record): Result {
  return { hash: createHash('sha256').update(parameters).digest('hex'), curve, largestBurst };
}
