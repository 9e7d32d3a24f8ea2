/** Two processes with a long fat pipe between them, in namespaces of their own: the link gets more stripes while it is in use. */
import { afterAll, expect, test } from 'vitest';
import { built } from '../harness/built.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { LongPipe } from '../harness/long-pipe.ts';
import { requireLongPipe } from '../harness/requirements.ts';
import { HostProcess } from '../nat/host-process.ts';

const TOKEN = 'a token of this test, long enough to be one';
/** So long that a few MB/s are enough, which any machine carries. */
const SHAPE = { bytesPerSecond: 125e6, delayMs: 100, queueBytes: 25e6 };
const STRIPES = 2;

let pipe: LongPipe | null = null;
afterAll(() => pipe?.close());

/** All-reduces until both have sent by more connections than at first. @returns what was sent by, at the end, and the last sum */
function train(peer: PeerProcess, value: number) {
  return peer.run(
    async ({ state }, { value, atFirst }) => {
      const group = state.group!;
      for (let step = 0; step < 60; step++) {
        const tensor = new Float32Array(2 ** 22).fill(value);
        const { retries } = await group.allReduce(tensor, { algorithm: 'ring', timeout: 60_000 });
        const { links } = await group.status();
        const isWide = Float32Array.of(links[0]!.stripes > atFirst ? 1 : 0);
        await group.allReduce(isWide, { op: 'min' });
        if (isWide[0] === 0) continue;
        return { stripes: links[0]!.stripes, retries, isExact: tensor.every((element) => element === 3) };
      }
      return null;
    },
    { value, atFirst: STRIPES },
  );
}

test('a link over a long fat pipe gets more stripes while it is in use, and no call notices', async (context) => {
  requireLongPipe(context);
  pipe = await LongPipe.open(SHAPE);
  const where = pipe.address('left');
  const command = [process.execPath, built('src/cli/main.ts'), 'coordinator', '--host', where] as const;
  const coordinator = new HostProcess(pipe.wrap('left', [...command]), { ...pipe.environment, SKEIN_TOKEN: TOKEN });
  const [address] = await coordinator.wrote(/tcp:\/\/\S+:\d+/);
  const peers = (['left', 'right'] as const).map((end) => {
    const { environment } = pipe!;
    return new PeerProcess(undefined, { environment, wrap: (wrapped) => pipe!.wrap(end, wrapped) });
  });
  await Promise.all(
    peers.map((peer) =>
      peer.join(address, { token: TOKEN, transports: ['tcp'], stripes: STRIPES, startWorldSize: 2, timeout: 20_000 }),
    ),
  );
  const results = await Promise.all(peers.map((peer, index) => train(peer, index + 1)));
  for (const result of results) {
    expect(result).toMatchObject({ retries: 0, isExact: true });
    expect(result!.stripes).toBeGreaterThan(STRIPES);
  }
  await Promise.all([...peers.map((peer) => peer.kill()), coordinator.kill()]);
}, 60_000);
