/** Engine threads that use WebRTC: what their processes may do, and how they end. */
import { once } from 'node:events';
import { diagnose } from 'skein';
import { describe, expect, test } from 'vitest';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';

const TRANSPORTS = ['webrtc'] as const;

/** Both peers add 1 and 2. */
async function addUp(peers: readonly PeerProcess[]): Promise<void> {
  const sums = await Promise.all(
    peers.map((peer, index) =>
      peer.run(async ({ state }, value) => {
        const tensor = new Float32Array(300_000).fill(value);
        await state.group!.allReduce(tensor, { timeout: 20_000 });
        return tensor.every((element) => element === 3);
      }, index + 1),
    ),
  );
  expect(sums).toEqual([true, true]);
}

test('peers leave and join again in one process, whose thread WebRTC stays in', async () => {
  await using cluster = await Cluster.start();
  const peers = await cluster.form(2, { transports: TRANSPORTS });
  await addUp(peers);
  for (let round = 0; round < 2; round++) {
    await Promise.all(peers.map((peer) => peer.run(({ state }) => state.group!.leave())));
    await Promise.all(
      peers.map((peer) =>
        peer.join(cluster.coordinator.address, { transports: TRANSPORTS, startWorldSize: 2, timeout: 20_000 }),
      ),
    );
    await addUp(peers);
  }
});

test('a second group of one process is refused while the first lives, and with another engine for good', async () => {
  await using cluster = await Cluster.start();
  const [peer] = (await cluster.form(1, { transports: TRANSPORTS })) as [PeerProcess];
  const again = (engine: 'worker' | 'inline') =>
    peer.join(cluster.coordinator.address, { transports: TRANSPORTS, engine, run: 'other', timeout: 10_000 });
  await expect(again('worker')).rejects.toThrow(/One group of a process can use WebRTC at a time/);
  await expect(again('inline')).rejects.toThrow(/join with the same engine again/);
});

describe('a process ends in good order with WebRTC open', () => {
  const ends = {
    'by process.exit()': [() => void setTimeout(() => process.exit(7), 10), 7],
    'by process.exit(), with a listener that takes longer than it takes to dial anew': [
      () => {
        process.once('exit', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_000));
        setTimeout(() => process.exit(7), 10);
      },
      7,
    ],
    'by an error that nobody catches': [
      () =>
        void setTimeout(() => {
          throw new Error('of the test');
        }, 10),
      1,
    ],
    'after it has left': [
      ({ state }: { state: { group?: { leave(): Promise<void> } } }) => {
        void state.group!.leave().then(() => process.disconnect());
      },
      0,
    ],
  } as const;
  test.each(Object.entries(ends))('%s', async (_, [body, code]) => {
    await using cluster = await Cluster.start();
    const peers = await cluster.form(2, { transports: TRANSPORTS });
    await addUp(peers);
    const victim = peers[1]!;
    const ended = once(victim.child, 'exit');
    await victim.run(body as () => void).catch(() => {});
    expect(await ended).toEqual([code, null]);
  });
});

test('each peer says how it reaches the others, and doctor says it from outside', async () => {
  await using cluster = await Cluster.start();
  const peers = await cluster.form(2, { transports: ['webrtc'] });
  // A member is let in as soon as the others can send to it; its own dials may take a little longer.
  const paths = () => peers[0]!.run(({ state }) => state.group!.members.map(({ path }) => path));
  await expect.poll(paths, { timeout: 20_000 }).toEqual([null, 'webrtc']);
  const links = await diagnose(cluster.coordinator.address, { transports: ['tcp', 'webrtc'] });
  expect(links.map(({ path }) => path)).toEqual([
    expect.stringMatching(/^webrtc p/),
    expect.stringMatching(/^webrtc p/),
  ]);
});
