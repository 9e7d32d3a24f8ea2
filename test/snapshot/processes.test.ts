/** Runs that lose all of their processes but one, or all of them, and go on with the bits of a run that was never disturbed. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';
import type { PeerScope } from '../harness/peer-process.ts';

const ELEMENTS = 2_000;

/** Processes take turns where there are few cores (ms). */
const PATIENCE_MS = 150_000;

interface Job {
  readonly address: string;
  readonly run: string;
  readonly name: string;
  readonly world: number;
  /** So many form the first view; of newcomers one. */
  readonly start: number | null;
  /** The loop ends there. */
  readonly until: number;
  /** Steps between snapshots. */
  readonly every: number;
  readonly directory: string | null;
  readonly elements: number;
  /** Tells of each step from this one on, and waits: it is to be killed. */
  readonly pauseAt: number;
  /** After this step the loop ends soon after all of `world` are members. */
  readonly stopFrom: number;
}

interface Ended {
  readonly hash: string;
  readonly revision: number;
  readonly first: number;
  readonly own: { readonly revision: number; readonly from: string } | null;
  readonly position: number;
}

/** Runs in the peer's process: training of which each step depends on all that was before, and on nothing else. */
async function train({ skein, tell }: PeerScope, job: Job): Promise<Ended> {
  const { address, run, name, world, start, until, every, directory, elements, pauseAt, stopFrom } = job;
  const weights = skein.sharedTensor('f32', elements);
  const momentum = new Float64Array(elements / 10);
  const state = { revision: 0, entries: { weights, momentum, seed: 7n, rate: 0.5 } };
  const own = { revision: 0, entries: { position: 0, residual: new Float32Array(1_000) } };
  const options = { run, name, state, startWorldSize: start ?? world, timeout: 30_000 };
  const group = await skein.join(address, { ...options, ...(directory === null ? {} : { resumeFrom: directory }) });
  const recalled = await group.recall(own);
  let first = -1;
  let written: Promise<string> | null = null;
  let stopAt = until;
  for await (const step of group.steps({ state, until })) {
    if (first < 0) first = step.index;
    if (step.index % every === 0) {
      ({ written } = await group.snapshot({ own, ...(directory === null ? {} : { directory }) }));
    }
    if (step.index >= pauseAt) {
      await written;
      tell(`at ${step.index}`);
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    }
    const isAlone = step.index > stopFrom && group.worldSize < world;
    if (isAlone) await new Promise((resolve) => setTimeout(resolve, 20));
    // Of equal contributions, so that it is the same for any number of members; the last element says whether to stop.
    const gradients = new Float32Array(elements + 1);
    gradients[elements] = step.index > stopFrom && !isAlone ? 1 : 0;
    for (let index = 0; index < elements; index++)
      gradients[index] = Math.fround(Math.sin(weights[index]! + index + step.index));
    await group.allReduce(gradients, { op: 'max' });
    for (let index = 0; index < elements; index++) {
      if (index % 10 === 0) momentum[index / 10] = 0.9 * momentum[index / 10]! + gradients[index]!;
      weights[index] =
        weights[index]! - state.entries.rate * gradients[index]! - 0.01 * momentum[Math.floor(index / 10)]!;
    }
    state.entries.seed = (state.entries.seed * 6364136223846793005n + 1442695040888963407n) % 2n ** 62n;
    state.entries.rate *= 0.99;
    own.entries.position += 1;
    if (gradients[elements]! > 0 && stopAt === until) stopAt = step.index + 3;
    if (step.index + 1 < stopAt) continue;
    state.revision += 1; // as the loop would have, had it gone on
    break;
  }
  const { hash, revision } = await group.syncState(state);
  await written;
  const position = own.entries.position;
  await group.leave();
  return { hash, revision, first, own: recalled, position };
}

function job(address: string, index: number, changes: Partial<Job>): Job {
  const common = {
    run: 'r',
    world: 2,
    start: null,
    until: 12,
    every: 4,
    directory: null,
    elements: ELEMENTS,
    pauseAt: 100_000,
    stopFrom: 100_000,
  };
  return { address, name: `peer-${index}`, ...common, ...changes };
}

function start(
  cluster: Cluster,
  count: number,
  changes: (index: number) => Partial<Job>,
): { peer: PeerProcess; ended: Promise<Ended> }[] {
  return Array.from({ length: count }, (_, index) => {
    const peer = cluster.spawn();
    const ended = peer.run(train, job(cluster.coordinator.address, index, changes(index)));
    ended.catch(() => {}); // it may be killed
    return { peer, ended };
  });
}

test('all processes are killed: a new run goes on from the newest of their snapshots, as if nothing had been', {
  timeout: PATIENCE_MS,
}, async () => {
  const path = mkdtempSync(join(tmpdir(), 'skein-resume-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  await using cluster = await Cluster.start();
  const calm = await Promise.all(start(cluster, 2, () => ({ run: 'calm' })).map(({ ended }) => ended));
  const directory = (index: number) => join(path, `${index}`);
  const killed = start(cluster, 2, (index) => ({ directory: directory(index), pauseAt: 9 }));
  await Promise.all(killed.map(({ peer }) => peer.told('at 9')));
  await Promise.all(killed.map(({ peer }) => peer.kill()));
  // One of them has lost its last snapshot.
  rmSync(join(directory(1), '000003.json'));
  const again = await Promise.all(
    start(cluster, 2, (index) => ({ run: 'again', directory: directory(index) })).map(({ ended }) => ended),
  );
  expect(again.map(({ first }) => first)).toEqual([8, 8]);
  expect(again.map(({ hash, revision }) => [hash, revision])).toEqual(
    calm.map(({ hash, revision }) => [hash, revision]),
  );
  // What was its own came from its folder, as old as that.
  expect(again.map(({ own }) => own)).toEqual([8, 4].map((revision, index) => ({ revision, from: directory(index) })));
  expect(again.map(({ position }) => position)).toEqual([12, 8]);
});

test('all processes but one are killed: newcomers have its bits, and one its own from who kept it', {
  timeout: PATIENCE_MS,
}, async () => {
  await using cluster = await Cluster.start();
  const world = { world: 3, until: 100_000, stopFrom: 6 };
  const first = start(cluster, 3, (index) => ({ ...world, pauseAt: index === 0 ? 100_000 : 6 }));
  const dying = first.slice(1);
  await Promise.all(dying.map(({ peer }) => peer.told('at 6')));
  // The survivor waits for them in its step.
  await Promise.all(dying.map(({ peer }) => peer.kill()));
  const later = start(cluster, 2, (index) => ({ ...world, name: `peer-${index + 1}`, start: 1 }));
  const ended = await Promise.all([first[0]!, ...later].map((one) => one.ended));
  const [{ hash, revision }] = ended as [Ended, ...Ended[]];
  expect(ended.map((one) => [one.hash, one.revision])).toEqual(ended.map(() => [hash, revision]));
  // One process alone, undisturbed, has the same.
  const [calm] = start(cluster, 1, () => ({ run: 'calm', world: 1, until: revision }));
  expect(await calm!.ended).toMatchObject({ hash, revision });
  // The survivor kept what was its own of the one before it, round the ring.
  const recalled = ended.slice(1).filter(({ own }) => own !== null);
  expect(recalled).toMatchObject([{ own: { revision: 4 } }]);
  expect(recalled[0]!.position).toBe(4 + revision - recalled[0]!.first);
});
