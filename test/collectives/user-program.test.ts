/** Programs that users bring: what is accepted, what is refused and why, and what crosses to the engine. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { algorithmsOf, makePlan } from '../../src/collectives/plan.ts';
import type { Algorithm, Instruction } from '../../src/collectives/program.ts';
import { type Expansion, type ProgramTable, planOf, worldOf } from '../../src/collectives/program-code.ts';
import { defineProgram } from '../../src/collectives/user-program.ts';
import { ArgumentError } from '../../src/errors.ts';
import { interpret } from './interpreter.ts';

const send = (to: number): Instruction => ({ do: 'send', to });
const reduce = (from: number): Instruction => ({ do: 'reduce', from });
const replace = (from: number): Instruction => ({ do: 'replace', from });

/** All add up at rank 0. */
function star(worldSize: number): ProgramTable {
  const others = Array.from({ length: worldSize - 1 }, (_, index) => index + 1);
  return [[[...others.map(reduce), ...others.map(send)], ...others.map(() => [send(0), replace(0)])]];
}

/** What a built-in algorithm does, as a user would write it down. */
function tableOf(algorithm: Algorithm, worldSize: number): ProgramTable {
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const plans = ranks.map((rank) =>
    makePlan({ kind: 'allReduce', algorithm, worldSize, count: worldSize, root: 0 }, rank),
  );
  return plans[0]!.chunks.map((_, id) => plans.map(({ chunks }) => chunks.find((chunk) => chunk.id === id)!.steps));
}

function expansionFor(table: (worldSize: number) => ProgramTable, worldSize: number, name = 'mine'): Expansion {
  const world = worldOf(defineProgram(name, table).forCall(worldSize, worldSize), worldSize, false);
  if (typeof world === 'string') throw new Error(world);
  return world;
}

describe('a program of the user', () => {
  it('says the same after it has crossed to the engine, for any number of elements', () => {
    const cases = fc.record({
      algorithm: fc.constantFrom(...algorithmsOf('allReduce')),
      worldSize: fc.integer({ min: 2, max: 9 }),
      count: fc.integer({ min: 0, max: 50 }),
    });
    fc.assert(
      fc.property(cases, ({ algorithm, worldSize, count }) => {
        const expansion = structuredClone(expansionFor((size) => tableOf(algorithm, size), worldSize));
        const plans = Array.from({ length: worldSize }, (_, rank) => planOf(expansion, rank, count));
        const inputs = plans.map((_, rank) => Array.from({ length: count }, (_, index) => index * 100 + rank));
        const request = { kind: 'allReduce' as const, algorithm, worldSize, count, root: 0 };
        const sum = { combine: (left: number, right: number) => left + right, finish: (value: number) => value };
        const wanted = Array.from({ length: count }, (_, index) =>
          inputs.reduce((all, input) => all + input[index]!, 0),
        );
        for (const output of interpret(plans, request, inputs, sum, count).outputs) expect(output).toEqual(wanted);
      }),
      { numRuns: 100 },
    );
  });

  it('has a label that is the same wherever it is defined, and another for whatever it says else', () => {
    const labels = (table: (worldSize: number) => ProgramTable, name?: string) =>
      [2, 3, 4].map((worldSize) => expansionFor(table, worldSize, name).label);
    expect(labels(star)).toEqual(labels((worldSize) => structuredClone(star(worldSize))));
    expect(new Set([...labels(star), ...labels(star, 'other'), ...labels((size) => tableOf('ring', size))]).size).toBe(
      9,
    );
    for (const label of labels(star)) expect(label).toMatch(/^program:mine#[0-9a-f]+$/);
  });

  it('is needed for no rank that is alone', () => {
    const never = defineProgram('never', () => {
      throw new Error('asked');
    });
    const world = worldOf(never.forCall(1, 1), 1, true);
    expect(typeof world === 'string' ? world : planOf(world, 0, 7).chunks).toEqual([
      { id: 0, count: 7, input: 0, output: 0, steps: [] },
    ]);
  });

  it('goes to the engine for the worlds that lost peers may leave, and fails alike where it has no answer', () => {
    const even = defineProgram('even', (worldSize) => {
      if (worldSize % 2 === 1) throw new Error('only for pairs');
      return star(worldSize);
    });
    const call = even.forCall(12, 3);
    expect(call.worlds.map(({ worldSize }) => worldSize)).toEqual([12, 11, 10, 9, 8, 7, 6, 5, 4]);
    expect(worldOf(call, 10, false)).toMatchObject({ worldSize: 10 });
    expect(worldOf(call, 9, false)).toMatch(/"even" is no all-reduce of 9 ranks. only for pairs/);
    for (const worldSize of [13, 3]) expect(worldOf(call, worldSize, false)).toMatch(/was not prepared for/);
    expect(even.forCall(4, 6).worlds.map(({ worldSize }) => worldSize)).toEqual([4]);
    expect(() => even.forCall(5, 1)).toThrow(/no all-reduce of 5 ranks/);
  });

  it('is asked once for each world size', () => {
    const asked: number[] = [];
    const program = defineProgram('counted', (worldSize) => {
      asked.push(worldSize);
      return star(worldSize);
    });
    for (let call = 0; call < 3; call++) program.forCall(4, 2);
    program.forCall(3, 2);
    expect(asked).toEqual([4, 3, 2]);
  });

  it('may be finished by several ranks, but not with codecs that drop bits', () => {
    const sealable: Record<Algorithm, boolean> = {
      ring: true,
      tree: true,
      doubling: false,
      halving: true,
      direct: true,
      hierarchical: true,
    };
    for (const [algorithm, expected] of Object.entries(sealable)) {
      const world = expansionFor((size) => tableOf(algorithm as Algorithm, size), 4);
      expect(world.sealable, algorithm).toBe(expected);
    }
    const call = defineProgram('doubling', (size) => tableOf('doubling', size)).forCall(4, 4);
    expect(worldOf(call, 4, true)).toMatch(/can't be used for 4 ranks with a codec that drops bits/);
  });

  it('with a codec takes no value twice', () => {
    const twice: ProgramTable = [
      [
        [reduce(1), reduce(2), send(1), send(2)],
        [send(0), replace(2), replace(0)],
        [send(0), send(1), replace(0)],
      ],
    ];
    expect(expansionFor(() => twice, 3).sealable).toBe(false);
  });
});

describe('what is wrong is named by chunk, rank and instruction', () => {
  const cases: [string, ProgramTable, RegExp][] = [
    [
      'a send that nobody takes',
      [
        [
          [reduce(1), send(1), send(1)],
          [send(0), replace(0)],
        ],
      ],
      /chunk 0 .*instruction 2 of rank 0 \(send to rank 1\) has no counterpart/,
    ],
    [
      'a receive that nobody sends',
      [
        [[], []],
        [
          [reduce(1), send(1), replace(1)],
          [send(0), replace(0)],
        ],
      ],
      /chunk 1 .*instruction 2 of rank 0 \(replace from rank 1\) has no counterpart/,
    ],
    [
      'a circle',
      [
        [
          [reduce(1), send(1)],
          [reduce(0), send(0)],
        ],
      ],
      /chunk 0 ranks wait .*circle: rank 0 .*rank 1/,
    ],
    [
      'a contribution that counts twice',
      [
        [
          [reduce(1), reduce(2), send(1), send(2)],
          [send(0), send(2), replace(0)],
          [reduce(1), send(0), replace(0)],
        ],
      ],
      /chunk 0 instruction 1 of rank 0 \(reduce from rank 2\): .* contribution from rank 2 .* already/,
    ],
    [
      'a rank that does not exist',
      [
        [
          [reduce(1), send(1)],
          [send(0), replace(7)],
        ],
      ],
      /chunk 0 rank 1 names rank 7 as the other side of a replace \(instruction 1\)/,
    ],
    ['a rank without the result', [[[reduce(1)], [send(0)]]], /rank 1 ends chunk 0 with contributions of rank 1 /],
    [
      'a second value before the first is taken',
      [
        [
          [reduce(2), reduce(1), replace(1), send(2), send(1)],
          [send(0), send(0), replace(0)],
          [send(0), replace(0)],
        ],
      ],
      /chunk 0 instruction 1 of rank 1 \(send to rank 0\): rank 0 may not have taken yet/,
    ],
    ['a rank too few', [[[]]], /Chunk 0 must be an array of the instructions of each of 2 ranks/],
    ['no chunk', [], /1 to \d+ chunks/],
    [
      'no instruction',
      [
        [
          [reduce(1), send(1)],
          [send(0), { do: 'wait', from: 0 } as unknown as Instruction],
        ],
      ],
      /chunk 0 instruction 1 of rank 1 is \{"do":"wait","from":0\}/,
    ],
  ];

  it.each(cases)('%s', (_, table, reason) => {
    const program = defineProgram('wrong', () => table);
    const worldSize = Math.max(2, table[0]?.length ?? 2);
    expect(() => program.forCall(worldSize, worldSize)).toThrow(reason);
    expect(() => program.forCall(worldSize, worldSize)).toThrow(ArgumentError);
  });

  it.each(['', 'a#b', 'x'.repeat(65)])('a name: %j', (name) => {
    expect(() => defineProgram(name, star)).toThrow(/up to 64 letters/);
  });
});
