/** Training on digits in three ways: data-parallel, alone, and with DiLoCo. */
import { createHash } from 'node:crypto';
import { createDiloco } from '../../src/diloco/index.ts';
import { type Codec, type Group, join } from '../../src/index.ts';
import type { Progress } from '../crew/crew.ts';
import type { Digits, Example } from '../mnist/batch.ts';
import { AdamW, Perceptron, seededRandom } from '../mnist/model.ts';
import { BATCH, EVERY, HIDDEN, PEERS, type Point, RATE, type Result, SEED, STEPS, type Task } from './task.ts';

/** One peer's model, its inner optimiser, and its images. */
class Learner {
  readonly model: Perceptron = new Perceptron(HIDDEN);
  readonly parameters: Float32Array = this.model.initial(SEED);
  readonly gradient: Float32Array = new Float32Array(this.model.parameters);
  readonly #optimizer: AdamW = new AdamW(this.model.parameters, RATE);
  readonly #images: readonly Example[];
  readonly #random: () => number;
  #updates = 0;

  constructor(images: readonly Example[], seed: number) {
    this.#images = images;
    this.#random = seededRandom(seed);
  }

  /** The mean gradient of a batch. */
  backward(): void {
    this.gradient.fill(0);
    for (let one = 0; one < BATCH; one++) {
      const { image, label } = this.#images[Math.floor(this.#random() * this.#images.length)]!;
      this.model.accumulateGradient(this.parameters, image, label, this.gradient);
    }
    for (let at = 0; at < this.gradient.length; at++) this.gradient[at]! /= BATCH;
  }

  update(): void {
    this.#updates += 1;
    this.#optimizer.update(this.parameters, this.gradient, this.#updates);
  }

  evaluate(test: readonly Example[]): { loss: number; accuracy: number } {
    let loss = 0;
    let right = 0;
    for (const { image, label } of test) {
      const judged = this.model.classify(this.parameters, image, label);
      loss += judged.loss;
      right += judged.guess === label ? 1 : 0;
    }
    return { loss: loss / test.length, accuracy: right / test.length };
  }
}

type OnProgress = (progress: Progress) => void;

/** Every step's gradients are averaged. */
async function dataParallel(
  group: Group,
  learner: Learner,
  note: (step: number, bytes: number) => void,
): Promise<void> {
  let bytes = 0;
  for (let step = 1; step <= STEPS; step++) {
    learner.backward();
    const report = await group.allReduce(learner.gradient, { op: 'avg' });
    bytes += report.bytesSent;
    learner.update();
    note(step, bytes);
  }
}

/** What `EVERY` steps changed is averaged. @returns outer gradients lost */
async function withDiloco(
  group: Group,
  learner: Learner,
  { codec, errorFeedback }: { readonly codec: Codec; readonly errorFeedback: boolean },
  note: (step: number, bytes: number) => void,
  onProgress: OnProgress,
): Promise<number> {
  const diloco = await createDiloco(
    group,
    { all: learner.parameters },
    {
      every: EVERY,
      outer: { learningRate: 0.7, momentum: 0.6 },
      wire: { codec, ...(codec === 'f32' ? {} : { errorFeedback }) },
    },
  );
  while (diloco.round < STEPS / EVERY) {
    learner.backward();
    learner.update();
    const { hasEnded } = await diloco.step();
    if (!hasEnded) continue;
    note(diloco.round * EVERY, diloco.totals.bytesSent);
    onProgress({ round: diloco.round, worldSize: group.worldSize });
  }
  return diloco.totals.lost;
}

/** Joins the task's run, trains, leaves. */
export async function train(task: Task, digits: Digits, onProgress: OnProgress): Promise<Result> {
  const shard = digits.training.filter((_, index) => index % PEERS === task.shard);
  const learner = new Learner(shard, 1_000 + task.shard);
  const curve: Point[] = [];
  const note = (step: number, bytes: number) => {
    if (step % EVERY === 0) curve.push({ step, bytes, ...learner.evaluate(digits.test) });
  };
  let lost = 0;
  if (task.method.kind === 'alone') {
    for (let step = 1; step <= STEPS; step++) {
      learner.backward();
      learner.update();
      note(step, 0);
    }
  } else {
    await using group = await join(task.coordinator, {
      run: task.name,
      startWorldSize: task.peers,
      timeout: 60_000,
    });
    if (task.method.kind === 'data-parallel') await dataParallel(group, learner, note);
    else lost = await withDiloco(group, learner, task.method, note, onProgress);
  }
  const hash = createHash('sha256').update(learner.parameters).digest('hex');
  return { hash, curve, lost };
}
