/** Programs of the user's own, through the public API, and what becomes of them when a member is lost. */
import { ArgumentError, defineProgram, MismatchError, type ProgramTable } from 'skein';
import { describe, expect, test } from 'vitest';
import { Cluster, type PeerProcess } from '../harness/cluster.ts';
import { type EngineKind, Members } from './members.ts';

/** All add up at one rank. */
function star(worldSize: number, centre: number): ProgramTable {
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const others = ranks.filter((rank) => rank !== centre);
  const steps = [
    ...others.map((from) => ({ do: 'reduce' as const, from })),
    ...others.map((to) => ({ do: 'send' as const, to })),
  ];
  return [
    ranks.map((rank) =>
      rank === centre
        ? steps
        : [
            { do: 'send', to: centre },
            { do: 'replace', from: centre },
          ],
    ),
  ];
}

const STAR = defineProgram('star', (worldSize) => star(worldSize, 0));

describe.each(['inline', 'worker'] as const)('with the engine %s', (engine: EngineKind) => {
  test('a program adds up, gives all the same bits, and is named in the report', async () => {
    await using members = await Members.form(3, { engine });
    const count = 200_003;
    for (const codec of ['f32', 'int8'] as const) {
      const tensors = members.groups.map((_, rank) =>
        Float32Array.from({ length: count }, (_, at) => Math.sin(at * 0.37 + rank)),
      );
      const inputs = tensors.map((tensor) => tensor.slice());
      const reports = await members.all((group, rank) => group.allReduce(tensors[rank]!, { algorithm: STAR, codec }));
      for (const { algorithm } of reports) expect(algorithm).toMatch(/^program:star#/);
      for (const tensor of tensors)
        expect(Buffer.compare(Buffer.from(tensor.buffer), Buffer.from(tensors[0]!.buffer))).toBe(0);
      const bound = codec === 'f32' ? 1e-6 : 0.05;
      for (let at = 0; at < count; at += 997) {
        expect(Math.abs(tensors[0]![at]! - inputs.reduce((sum, input) => sum + input[at]!, 0))).toBeLessThan(bound);
      }
    }
  });

  test('members with programs that say something else, under one name, all learn so', async () => {
    await using members = await Members.form(3, { engine });
    const other = defineProgram('star', (worldSize) => star(worldSize, worldSize - 1));
    const tensors = members.groups.map(() => new Float32Array(1000).fill(1));
    const outcomes = await members.all((group, rank) =>
      group.allReduce(tensors[rank]!, { algorithm: rank === 1 ? other : STAR }).catch((error: unknown) => error),
    );
    for (const outcome of outcomes) {
      expect(outcome).toBeInstanceOf(MismatchError);
      expect(String(outcome)).toMatch(/program:star#[0-9a-f]+/);
    }
    for (const tensor of tensors) expect(tensor.every((value) => value === 1)).toBe(true);
  });
});

test('a program that is none is refused before a byte moves', async () => {
  await using members = await Members.form(2, { engine: 'inline' });
  const [group] = members.groups;
  const broken = defineProgram('broken', (worldSize) =>
    star(worldSize, 0).map(([first, ...rest]) => [first!, ...rest.map((steps) => steps.slice(1))]),
  );
  const tensor = new Float32Array(4);
  expect(() => group!.allReduce(tensor, { algorithm: broken })).toThrow(
    /chunk 0 .*instruction 0 of rank 0 \(reduce from rank 1\)/,
  );
  expect(() => group!.allReduce(tensor, { algorithm: STAR, op: 'median' })).toThrow(ArgumentError);
  expect(() => group!.reduce(tensor, { algorithm: STAR as never })).toThrow(/is for allReduce, not for reduce/);
});

describe('when a member is killed on the way', () => {
  /** 8 MiB of ones: several segments, so that the victim can die in the middle. */
  function reduceOnce(peer: PeerProcess, smallest: number, victim: boolean) {
    return peer.run(
      async ({ skein, state }, { smallest, victim }) => {
        const program = skein.defineProgram('star', (worldSize) => {
          if (worldSize < smallest) throw new Error(`nothing for ${worldSize}`);
          const others = Array.from({ length: worldSize - 1 }, (_, index) => index + 1);
          const centre = [
            ...others.map((from) => ({ do: 'reduce' as const, from })),
            ...others.map((to) => ({ do: 'send' as const, to })),
          ];
          const leaf = [
            { do: 'send' as const, to: 0 },
            { do: 'replace' as const, from: 0 },
          ];
          return [[centre, ...others.map(() => leaf)]];
        });
        const tensor = new Float32Array(1 << 21).fill(1);
        const onProgress = (share: number) => {
          if (victim && share >= 0.2) process.kill(process.pid, 'SIGKILL');
        };
        const report = await state.group!.allReduce(tensor, { algorithm: program, timeout: 20_000, onProgress });
        return {
          algorithm: report.algorithm,
          contributors: report.contributors.length,
          sum: tensor[7],
          last: tensor.at(-1),
        };
      },
      { smallest, victim },
    );
  }

  async function outcomesWithout(smallest: number) {
    await using cluster = await Cluster.start();
    const peers = await cluster.form(4, { engine: 'inline' });
    const before = await Promise.all(peers.map((peer) => reduceOnce(peer, smallest, false)));
    for (const result of before) expect(result).toMatchObject({ contributors: 4, sum: 4, last: 4 });
    const outcomes = await Promise.allSettled(peers.map((peer, index) => reduceOnce(peer, smallest, index === 3)));
    return { before: before[0]!.algorithm, outcomes: outcomes.slice(0, 3) };
  }

  test('the others go on by what the program says for so many', async () => {
    const { before, outcomes } = await outcomesWithout(2);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ status: 'fulfilled', value: { contributors: 3, sum: 3, last: 3 } });
      expect(outcome.status === 'fulfilled' && outcome.value.algorithm).not.toBe(before);
    }
  });

  test('the others fail alike where it says nothing', async () => {
    const { outcomes } = await outcomesWithout(4);
    for (const outcome of outcomes) {
      expect(outcome.status).toBe('rejected');
      expect(String(outcome.status === 'rejected' && outcome.reason)).toMatch(
        /no all-reduce of 3 ranks. nothing for 3/,
      );
    }
  });
});
