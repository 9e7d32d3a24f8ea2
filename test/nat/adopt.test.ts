/** Peers whose best way is shut when they meet, and opens later: they go over to it at a boundary, and no call notices. */
import type { GroupMember } from 'skein';
import { expect, test } from 'vitest';
import { built } from '../harness/built.ts';
import { PeerProcess } from '../harness/cluster.ts';
import { requireInternet } from '../harness/requirements.ts';
import type { Coturn } from './coturn.ts';
import { type Host, Internet } from './internet.ts';

const MAIN = built('src/cli/main.ts');
const TOKEN = 'a token of tests, long enough to be one';

type Path = GroupMember['path'];

interface Case {
  readonly transports: readonly ('tcp' | 'webrtc')[];
  readonly drops: 'tcp' | 'udp';
  readonly hasRelay: boolean;
  readonly before: Path;
  readonly after: Path;
}

async function startCoordinator(host: Host, coturn: Coturn | null): Promise<string> {
  const ice = coturn === null ? [] : ['--ice', coturn.urls.stun, coturn.urls.turn];
  const coordinator = host.node(MAIN, ['coordinator', '--host', host.address, ...ice], {
    environment: { SKEIN_TOKEN: TOKEN, ...(coturn === null ? {} : { SKEIN_TURN_SECRET: coturn.secret }) },
  });
  const [address] = await coordinator.wrote(/tcp:\/\/\S+:\d+/);
  return address;
}

/** Trains until both see the other by this path: what the calls reported, and what their results were. */
function train(peer: PeerProcess, index: number, path: Path) {
  return peer.run(
    async ({ state, tell }, { index, path }) => {
      const group = state.group!;
      const epoch = group.epoch;
      const tensor = new Float32Array(40_000);
      const spanning = new Float32Array(100_000);
      let digest = 0;
      let retries = 0;
      let stepsAfter = 0;
      // As many steps as the other makes: both know how many of them see the path.
      for (let step = 0; step < 1_500 && stepsAfter < 5; step++) {
        for (let at = 0; at < spanning.length; at++) spanning[at] = (at % 1_000) * (index + 0.7) + step;
        const across = group.allReduce(spanning, { tag: 'across the boundary', timeout: 20_000 });
        await group.admit();
        const isThere = group.members.some((member) => member.path === path);
        for (let at = 0; at < tensor.length; at++) tensor[at] = Math.sin(at + step) * (index + 0.3);
        tensor[0] = isThere ? 1 : 0;
        const report = await group.allReduce(tensor, { timeout: 20_000 });
        retries += report.retries + (await across).retries;
        if (tensor[0] === 2) stepsAfter += 1;
        for (const { buffer } of [tensor, spanning])
          for (const bits of new Uint32Array(buffer)) digest = (Math.imul(digest, 31) + bits) | 0;
        if (step === 5) tell('going');
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return { digest, retries, stepsAfter, epochs: group.epoch - epoch };
    },
    { index, path },
  );
}

const CASES: readonly Case[] = [
  { transports: ['tcp', 'webrtc'], drops: 'tcp', hasRelay: false, before: 'webrtc', after: 'tls' },
  { transports: ['webrtc'], drops: 'udp', hasRelay: true, before: 'turn', after: 'webrtc' },
];

test.for(CASES)('from $before to $after', async ({ transports, drops, hasRelay, before, after }, context) => {
  requireInternet(context);
  await using internet = new Internet();
  const coturn = hasRelay ? await internet.coturn() : null;
  const address = await startCoordinator(internet.host(), coturn);
  const hosts = [internet.host(), internet.host()] as const;
  hosts[0].dropFrom(hosts[1].address, drops);
  hosts[1].dropFrom(hosts[0].address, drops);
  const peers = hosts.map((host) => {
    const environment = { ...host.environment, SKEIN_PROBE_MS: '300' };
    return new PeerProcess(undefined, { environment, wrap: (command) => host.wrap(command) });
  });
  try {
    await Promise.all(
      peers.map((peer) => peer.join(address, { token: TOKEN, transports, startWorldSize: 2, timeout: 30_000 })),
    );
    const paths = async () => {
      const seen = peers.map((peer) => peer.run(({ state }) => state.group!.members.map(({ path }) => path)));
      return (await Promise.all(seen)).flat().filter((path) => path !== null);
    };
    // A member is let in as soon as the others can send to it; and a session settles on its path a little later.
    await expect.poll(paths, { timeout: 10_000 }).toEqual([before, before]);
    const trained = peers.map((peer, index) => train(peer, index, after));
    await Promise.all(peers.map((peer) => peer.told('going')));
    for (const host of hosts) host.dropNothing();
    const [one, other] = await Promise.all(trained);
    expect(one).toMatchObject({ retries: 0, stepsAfter: 5, epochs: 0 });
    expect(other).toMatchObject({ retries: 0, stepsAfter: 5, epochs: 0, digest: one!.digest });
    expect(await paths()).toEqual([after, after]);
    const links = await peers[0]!.run(async ({ state }) => (await state.group!.status()).links.map(({ path }) => path));
    expect(links).toEqual([expect.stringMatching(new RegExp(`^${after} `))]);
  } finally {
    await Promise.all(peers.map((peer) => peer.kill()));
  }
});
