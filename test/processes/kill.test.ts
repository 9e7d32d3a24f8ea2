import type { JoinOptions } from 'skein';
import { describe, expect, test } from 'vitest';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';

type Transport = NonNullable<JoinOptions['transports']>[number];

/** 4 MiB: large enough for every phase of a ring to take several turns of the event loop. */
const COUNT = 1 << 20;

/** All-reduces a tensor of which element i is `base + i % 7`; returns what is needed to check it. */
function reduceOnce(peer: PeerProcess, base: number, count = COUNT) {
  return peer.run(
    async ({ state }, { base, count }) => {
      const tensor = Float32Array.from({ length: count }, (_, index) => base + (index % 7));
      const report = await state.group!.allReduce(tensor, { algorithm: 'ring', timeout: 20_000 });
      let hash = 0;
      for (const word of new Uint32Array(tensor.buffer)) hash = (Math.imul(hash, 31) + word) | 0;
      return { hash, first: tensor[0]!, eighth: tensor[8]!, last: tensor[count - 1]!, report };
    },
    { base, count },
  );
}

function idOf(peer: PeerProcess): Promise<string> {
  return peer.run(({ state }) => state.group!.peerId);
}

/** The survivors agree to the bit, and the result is the sum of precisely the reported contributors' inputs. */
async function expectAgreement(results: Awaited<ReturnType<typeof reduceOnce>>[], bases: ReadonlyMap<string, number>) {
  const [first] = results;
  for (const result of results) {
    expect(result.hash).toBe(first!.hash);
    expect(result.report.epoch).toBe(first!.report.epoch);
    expect(result.report.id).toBe(first!.report.id);
    expect(result.report.contributors).toEqual(first!.report.contributors);
    const contributors = result.report.contributors;
    const sum = contributors.reduce((total, peerId) => total + bases.get(peerId)!, 0);
    expect(result.first).toBe(sum);
    expect(result.eighth).toBe(sum + contributors.length);
    expect(result.last).toBe(sum + contributors.length * ((COUNT - 1) % 7));
  }
}

type Phase =
  | 'before open'
  | 'during reduce'
  | 'during gather'
  | 'holding the result'
  | 'after its last word'
  | 'at a boundary';

/** Runs in the victim: dies by its own hand in the phase, which is the only way to hit it exactly. */
async function dieIn(peer: PeerProcess, phase: Phase, count: number): Promise<void> {
  const death = peer.run(
    async ({ state }, { phase, count }) => {
      const die = () => process.kill(process.pid, 'SIGKILL');
      const tensor = new Float32Array(count).fill(1000);
      if (phase === 'before open') die();
      if (phase === 'at a boundary') {
        void state.group!.admit();
        setImmediate(die);
        return;
      }
      const onProgress = (share: number) => {
        if (phase === 'during gather' && share >= 0.5) die();
        if (phase === 'holding the result' && share === 1) die();
        if (phase === 'after its last word' && share === 1) setImmediate(die);
      };
      const result = state.group!.allReduce(tensor, { algorithm: 'ring', timeout: 20_000, onProgress });
      if (phase === 'during reduce') setImmediate(die);
      await result;
    },
    { phase, count },
  );
  await expect(death).rejects.toThrow(/ended/);
}

const WAYS: readonly (readonly Transport[])[] = [['unix', 'tcp'], ['webrtc']];

describe.each(WAYS)('a peer is killed, over %s', (...transports) => {
  const phases: Phase[] = [
    'before open',
    'during reduce',
    'during gather',
    'holding the result',
    'after its last word',
  ];
  test.each(phases)('%s: the survivors agree on a result, and on the next one', async (phase) => {
    // A killed process closes no data channel: it is missed when it is silent for too long.
    await using cluster = await Cluster.start({ lostAfterMs: 3_000 });
    // The victim's engine is inline, so that it dies at the very instruction.
    const peers = await cluster.form(4, { transports, engine: phase === 'before open' ? 'worker' : 'inline' });
    const ids = await Promise.all(peers.map(idOf));
    const bases = new Map(ids.map((peerId, index) => [peerId, index === 2 ? 1000 : index + 1]));
    const survivors = peers.filter((_, index) => index !== 2);
    const victim = peers[2]!;
    const pending = survivors.map((peer) => reduceOnce(peer, bases.get(ids[peers.indexOf(peer)]!)!));
    // The victim's tensor is constant, so that only its first element follows the formula: it must be in all or in none.
    const dying = dieIn(victim, phase, COUNT);
    const results = await Promise.all(pending);
    await dying;
    const included = results[0]!.report.contributors.length === 4;
    if (included) {
      for (const result of results) expect(result.hash).toBe(results[0]!.hash);
      expect(results[0]!.first).toBe(1 + 2 + 1000 + 4);
    } else {
      await expectAgreement(results, bases);
      expect(results[0]!.report.contributors).toEqual(ids.filter((_, index) => index !== 2));
      expect(results[0]!.report.worldSize).toBe(3);
    }
    const again = await Promise.all(survivors.map((peer, index) => reduceOnce(peer, index + 1)));
    const nextBases = new Map(survivors.map((peer, index) => [ids[peers.indexOf(peer)]!, index + 1]));
    await expectAgreement(again, nextBases);
    expect(again[0]!.report.contributors).toHaveLength(3);
  });

  test('at a boundary: the survivors pass it, and go on', async () => {
    await using cluster = await Cluster.start();
    const peers = await cluster.form(3, { transports, engine: 'inline' });
    const ids = await Promise.all(peers.map(idOf));
    await dieIn(peers[1]!, 'at a boundary', 0).catch(() => {});
    const survivors = [peers[0]!, peers[2]!];
    const admissions = await Promise.all(survivors.map((peer) => peer.run(({ state }) => state.group!.admit())));
    for (const admission of admissions) expect(admission.epoch).toBeGreaterThanOrEqual(1);
    const results = await Promise.all(survivors.map((peer, index) => reduceOnce(peer, index + 1)));
    await expectAgreement(
      results,
      new Map([
        [ids[0]!, 1],
        [ids[2]!, 2],
      ]),
    );
  });
});
