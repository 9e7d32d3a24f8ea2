/**
 * Real coordinators on a real etcd of three members: whoever is lost, one leads, and the peers notice no more than a pause.
 * `npm run failover` does the same many times, and measures.
 */
import { afterAll, describe, expect, onTestFinished, type TestContext, test } from 'vitest';
import { Etcd, Gate } from '../harness/etcd.ts';
import { requireEtcd } from '../harness/requirements.ts';
import { Deployment, judge } from './deployment.ts';

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
  await deployment.train(PEERS);
  return deployment;
}

/** All peers go on making calls, and nothing went wrong. */
async function expectAllWell(deployment: Deployment): Promise<void> {
  await deployment.callsMade(10);
  const faults = [...judge(await deployment.stop()), ...deployment.discords()];
  expect(faults, deployment.story).toEqual([]);
}

describe('the leader of the coordinators', () => {
  test('is killed: another takes over, no peer is lost, and no call fails or counts twice', async (context) => {
    const { urls } = await etcd(context);
    const deployment = await deploy([urls, urls]);
    const { leader } = deployment;
    const term = leader.terms.at(-1);
    await leader.daemon.kill();
    await deployment.ledAfter(term!, PATIENCE_MS);
    await expectAllWell(deployment);
  });

  test('is stopped, and goes on when another leads: it says nothing more, and stands by', async (context) => {
    const { urls } = await etcd(context);
    const deployment = await deploy([urls, urls]);
    const { leader } = deployment;
    const term = leader.terms.at(-1);
    leader.daemon.signal('SIGSTOP');
    await deployment.ledAfter(term!, PATIENCE_MS);
    await deployment.callsMade(5);
    leader.daemon.signal('SIGCONT');
    await leader.daemon.wrote(/leads no longer[\s\S]*stands by/);
    await expectAllWell(deployment);
    expect(deployment.leader).not.toBe(leader);
  });

  test('is cut off from etcd: it steps down by its own clock, and leads again when it may', async (context) => {
    const { urls } = await etcd(context);
    const gates = await Promise.all(urls.map((url) => Gate.open(url)));
    for (const gate of gates) onTestFinished(() => gate[Symbol.asyncDispose]());
    const deployment = await deploy([gates.map(({ url }) => url)]);
    await deployment.add(urls, LEASE_MS);
    const [only] = deployment.coordinators;
    for (const gate of gates) gate.cut();
    await only!.daemon.wrote(/leads no longer: it could not renew its lease in time/);
    await deployment.ledAfter(only!.terms[0]!, PATIENCE_MS);
    for (const gate of gates) gate.mend();
    await only!.daemon.wrote(/leads no longer[\s\S]*stands by/);
    await expectAllWell(deployment);
  });
});

// The last one: it costs etcd a member.
test("etcd's own leader is killed: the coordinators go on with the others", async (context) => {
  const shared = await etcd(context);
  const deployment = await deploy([shared.urls, shared.urls]);
  await (await shared.leader()).daemon.kill();
  // With so short a lease the leader may have to step down meanwhile.
  await deployment.callsMade(50);
  await deployment.ledAfter(0, PATIENCE_MS);
  const { leader } = deployment;
  await leader.daemon.kill();
  await deployment.ledAfter(leader.terms.at(-1)!, PATIENCE_MS);
  await expectAllWell(deployment);
});
