/** Real coordinators on a real etcd of three members: whoever is lost, one leads, and the peers notice no more than a pause. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, onTestFinished, type TestContext, test } from 'vitest';
import { Etcd, Gate } from '../harness/etcd.ts';
import { requireEtcd } from '../harness/requirements.ts';
import { Deployment, judge, recoveryOf } from './deployment.ts';

/** The shortest that etcd grants. */
const LEASE_MS = 2_000;
const PEERS = 3;
const PATIENCE_MS = 30_000;

let started: Promise<Etcd> | null = null;

function etcd(context: Pick<TestContext, 'skip'>): Promise<Etcd> {
  requireEtcd(context);
  started ??= Etcd.start(3);
  return started;
}

afterAll(async () => {
  await (await started)?.[Symbol.asyncDispose]();
});

async function deploy(etcd: readonly (readonly string[])[]): Promise<Deployment> {
  const deployment = await Deployment.start(etcd, LEASE_MS);
  onTestFinished(() => deployment[Symbol.asyncDispose]());
  await expect.poll(() => deployment.coordinators.some(({ leads }) => leads), { timeout: PATIENCE_MS }).toBe(true);
  await deployment.train(PEERS);
  return deployment;
}

function anotherLeads(deployment: Deployment, than: number): Promise<void> {
  return expect
    .poll(() => Math.max(...deployment.coordinators.flatMap(({ terms }) => terms)), { timeout: PATIENCE_MS })
    .toBeGreaterThan(than);
}

/** No two coordinators led in one term, nor announced the same view. */
function expectOneVoice({ coordinators }: Deployment): void {
  const terms = coordinators.flatMap((one) => one.terms);
  expect(new Set(terms).size).toBe(terms.length);
  const epochs = coordinators.flatMap((one) => one.epochs);
  expect(new Set(epochs).size).toBe(epochs.length);
}

describe('the leader of the coordinators', () => {
  test('is killed: another takes over, no peer is lost, and no call fails or counts twice', async (context) => {
    const { urls } = await etcd(context);
    const deployment = await deploy([urls, urls]);
    const { leader } = deployment;
    const [term] = leader.terms;
    const at = Date.now();
    await leader.daemon.kill();
    await anotherLeads(deployment, term!);
    await delay(1_500);
    const histories = await deployment.stop();
    for (const c of deployment.coordinators) console.log(c.address, c.daemon.output);
    expect(judge(histories)).toEqual([]);
    expect(recoveryOf(histories, at)).toBeLessThan(PATIENCE_MS);
    expectOneVoice(deployment);
  });
});
