/**
 * One peer of a data-parallel training run: what a user writes. Start several with
 *
 *     skein launch -n 4 --restart -- node dist/examples/mnist/train.js
 *
 * With DEMO_KILL_STEP and DEMO_KILL_RANK in the environment that rank dies in the middle of that step's all-reduce.
 */
import { createHash } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { type Group, join, type Step } from '../../src/index.ts';
import { shareOfBatch } from './batch.ts';
import { loadDigits } from './data.ts';
import { AdamW, Perceptron } from './model.ts';

const STEPS = Number(process.env['DEMO_STEPS'] ?? 240);
const BATCH = 160;
const HIDDEN = 256;
const SEED = 7;

/** What one peer tells the demo at the end; a line of JSON. */
export interface PeerResult {
  readonly type: 'result';
  readonly peerId: string;
  readonly hash: string;
  readonly accuracy: number;
  /** Epoch and world size at each step where they changed. */
  readonly history: readonly { readonly step: number; readonly epoch: number; readonly worldSize: number }[];
  /** Steps whose all-reduce was begun anew, with the milliseconds that it took beyond the median. */
  readonly retried: readonly { readonly step: number; readonly lostMs: number }[];
  /** Boundaries that admitted somebody, with the milliseconds that they took beyond the median. */
  readonly admissions: readonly { readonly step: number; readonly costMs: number }[];
}

function say(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[values.length >> 1] ?? 0;
}

/** Newcomers get parameters, optimiser state and step number from the lowest-ranked old member. */
async function shareState(group: Group, step: Step, state: readonly Float32Array[]): Promise<void> {
  const source = group.members.find((member) => !step.joined.includes(member.peerId));
  // At the very start everybody is new, and begins with the same seed.
  if (step.joined.length > 0 && source !== undefined) await group.broadcast(state, { root: source.peerId });
}

/** Asked to end, as when a machine is taken away: the step is done, and then this peer leaves, which costs the others nothing. */
let isLeaving = false;
process.once('SIGTERM', () => {
  isLeaving = true;
});

const { training, test } = loadDigits();
const group = await join();

const model = new Perceptron(HIDDEN);
const PARAMETERS = model.parameters;
const parameters = model.initial(SEED);
const optimizer = new AdamW(PARAMETERS);
const done = new Float32Array(1);
/** Gradient, then the sum of losses and the number of examples in it. */
const sums = new Float32Array(PARAMETERS + 2);

const history: PeerResult['history'][number][] = [];
const reduceMs: { step: number; ms: number; retries: number }[] = [];
const boundaryMs: { step: number; ms: number; admits: boolean }[] = [];

let left = performance.now();
for await (const step of group.steps()) {
  boundaryMs.push({ step: done[0]!, ms: performance.now() - left, admits: step.joined.length > 0 });
  await shareState(group, step, [parameters, optimizer.mean, optimizer.variance, done]);
  const number = done[0]!;
  if (number >= STEPS) break;

  sums.fill(0);
  const share = shareOfBatch(training, number, BATCH, group.rank, group.worldSize);
  for (const { image, label } of share) sums[PARAMETERS]! += model.accumulateGradient(parameters, image, label, sums);
  sums[PARAMETERS + 1] = share.length;

  const dies =
    number === Number(process.env['DEMO_KILL_STEP'] ?? -1) && group.rank === Number(process.env['DEMO_KILL_RANK']);
  const doomed = dies && process.env['SKEIN_RESTARTS'] === '0';
  const report = await group.allReduce(sums, {
    algorithm: 'ring',
    onProgress: () => {
      if (doomed) process.kill(process.pid, 'SIGKILL');
    },
  });
  reduceMs.push({ step: number, ms: report.seconds * 1_000, retries: report.retries });
  if (history.at(-1)?.epoch !== report.epoch)
    history.push({ step: number, epoch: report.epoch, worldSize: report.worldSize });

  // A peer that was lost in this step took its examples along: what is left is averaged over its own number.
  const examples = sums[PARAMETERS + 1]!;
  for (let index = 0; index < PARAMETERS; index++) sums[index]! /= examples;
  optimizer.update(parameters, sums, number + 1);
  done[0] = number + 1;
  if (group.rank === 0 && (number % 10 === 0 || number + 1 === STEPS)) {
    const { epoch, worldSize } = group;
    say({ type: 'progress', step: number + 1, of: STEPS, loss: sums[PARAMETERS]! / examples, worldSize, epoch });
  }
  left = performance.now();
  if (isLeaving) {
    await group.leave();
    process.exit();
  }
}

const right = test.filter(({ image, label }) => model.classify(parameters, image, label).guess === label).length;
const usualReduce = median(reduceMs.filter((one) => one.retries === 0).map((one) => one.ms));
const usualBoundary = median(boundaryMs.filter((one) => !one.admits).map((one) => one.ms));
const result: PeerResult = {
  type: 'result',
  peerId: group.peerId,
  hash: createHash('sha256').update(parameters).digest('hex'),
  accuracy: right / test.length,
  history,
  retried: reduceMs.filter((one) => one.retries > 0).map(({ step, ms }) => ({ step, lostMs: ms - usualReduce })),
  // The first is the peer's own admission, which cost the others nothing that it could see.
  admissions: boundaryMs
    .slice(1)
    .flatMap(({ step, ms, admits }) => (admits ? [{ step, costMs: ms - usualBoundary }] : [])),
};
say(result);
await group.leave();
