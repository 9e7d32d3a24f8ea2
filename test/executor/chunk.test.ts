/** What a program says of its chunk before it runs. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Chunk, cutChunks } from '../../src/collectives/chunk.ts';
import { makePlan } from '../../src/collectives/plan.ts';
import type { Instruction } from '../../src/collectives/program.ts';

const send = (to: number): Instruction => ({ do: 'send', to });
const reduce = (from: number): Instruction => ({ do: 'reduce', from });
const replace = (from: number): Instruction => ({ do: 'replace', from });

test.each([
  {
    title: 'who sends a part and gets the sum needs nothing in between',
    chunk: { input: 0, output: 0, steps: [send(1), replace(1)] },
    expected: { neededAfter: [false, true], passesOn: [false, false], finishingStep: -1 },
  },
  {
    title: 'who adds the last part finishes the value, and keeps what it sends',
    chunk: { input: 0, output: 0, steps: [reduce(1), reduce(2), send(1), send(2)] },
    expected: { neededAfter: [true, true, true, true], passesOn: [false, false, false, false], finishingStep: 1 },
  },
  {
    title: 'a finished value goes on as it came, to the last of those who get it',
    chunk: { input: null, output: 0, steps: [replace(0), send(2), send(3)] },
    expected: { neededAfter: [true, true, true], passesOn: [true, false, false], finishingStep: -1 },
  },
  {
    title: 'who keeps no result finishes none, and is done with its value when it is sent',
    chunk: { input: 0, output: null, steps: [reduce(2), send(0)] },
    expected: { neededAfter: [true, false], passesOn: [false, false], finishingStep: -1 },
  },
])('$title', ({ chunk, expected }) => {
  const { neededAfter, passesOn, finishingStep } = new Chunk({ id: 0, count: 1, ...chunk }, 0, 0, 1);
  expect({ neededAfter, passesOn, finishingStep }).toEqual(expected);
});

test('segments are numbered one after another, and cover each element of the tensor once', () => {
  const cases = fc.record({
    worldSize: fc.integer({ min: 2, max: 6 }),
    count: fc.nat(200),
    segmentElements: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(
    fc.property(cases, ({ worldSize, count, segmentElements }) => {
      const plan = makePlan({ kind: 'allReduce', algorithm: 'ring', worldSize, count, root: 0 }, 0);
      const covered: number[] = [];
      let next = 0;
      for (const [order, chunk] of cutChunks(plan, segmentElements).entries()) {
        expect([chunk.order, chunk.firstSegment]).toEqual([order, next]);
        next += chunk.segments;
        for (let segment = chunk.firstSegment; segment < next; segment++) {
          const elements = chunk.elements(segment);
          expect(elements).toBeGreaterThan(0);
          expect(elements).toBeLessThanOrEqual(segmentElements);
          for (let element = 0; element < elements; element++) covered.push(chunk.index(segment) + element);
        }
      }
      expect(covered.sort((left, right) => left - right)).toEqual(Array.from({ length: count }, (_, index) => index));
    }),
  );
});
