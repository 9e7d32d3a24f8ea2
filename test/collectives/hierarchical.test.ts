/** Sites of every shape: exact, one and the same bits, and as few bytes between sites as can be. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makePlan, sitesOf } from '../../src/collectives/plan.ts';
import type { Plan, PlanRequest, Sites } from '../../src/collectives/program.ts';
import { validatePlans } from '../../src/collectives/validate.ts';
import { ArgumentError } from '../../src/errors.ts';
import { inputsFor, plansFor, resultsByDefinition, transcriptOf } from './cases.ts';
import { interpret, randomFrom } from './interpreter.ts';

const SUM = { combine: (left: number, right: number) => left + right, finish: (value: number) => value };

/** Any sites of up to 17 ranks, in any order. */
const anySites: fc.Arbitrary<Sites> = fc
  .array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 17 })
  .map((names) => sitesOf(names.map(String)));

/** Sites of the same size, their ranks side by side or in turns. */
const equalSites: fc.Arbitrary<Sites> = fc
  .record({ sites: fc.integer({ min: 2, max: 5 }), size: fc.integer({ min: 1, max: 4 }), inTurns: fc.boolean() })
  .map(({ sites, size, inTurns }) =>
    Array.from({ length: sites * size }, (_, rank) => (inTurns ? rank % sites : Math.floor(rank / size))),
  );

function requestFor(kind: 'allReduce' | 'reduceScatter', sites: Sites, count: number): PlanRequest {
  return { kind, algorithm: 'hierarchical', worldSize: sites.length, sites, count, root: 0 };
}

/** Elements that each rank sends to other sites. */
function sentFar(plans: readonly Plan[], sites: Sites): number[] {
  return plans.map(({ chunks }, rank) =>
    chunks
      .flatMap(({ count, steps }) => steps.map((step) => ({ count, step })))
      .filter(({ step }) => step.do === 'send' && sites[step.to] !== sites[rank])
      .reduce((sum, { count }) => sum + count, 0),
  );
}

describe('hierarchical', () => {
  it('is exact and accepted by the validator, whatever the sites', () => {
    const kinds = fc.constantFrom('allReduce' as const, 'reduceScatter' as const);
    fc.assert(
      fc.property(kinds, anySites, fc.integer({ min: 0, max: 60 }), fc.integer(), (kind, sites, count, seed) => {
        const request = requestFor(kind, sites, count);
        const plans = plansFor(request);
        validatePlans(plans, request);
        const random = randomFrom(seed);
        const inputs = inputsFor(request, () => Math.floor(random() * 100));
        const { outputs } = interpret(plans, request, inputs, SUM, seed);
        expect(outputs).toEqual(
          resultsByDefinition(request, inputs, (terms) => terms.reduce((left, right) => left + right)),
        );
      }),
      { numRuns: 300 },
    );
  });

  it('sends the vector between sites as if each were one rank, and shares that evenly among its members', () => {
    fc.assert(
      fc.property(equalSites, (sites) => {
        const worldSize = sites.length;
        const siteCount = Math.max(...sites) + 1;
        const size = worldSize / siteCount;
        const count = 12 * worldSize;
        const far = sentFar(plansFor(requestFor('allReduce', sites, count)), sites);
        expect(far).toEqual(far.map(() => (2 * (siteCount - 1) * count) / siteCount / size));
      }),
      { numRuns: 60 },
    );
  });

  it('sends no more than that between sites of unequal size, all members alike', () => {
    fc.assert(
      fc.property(anySites, (sites) => {
        const siteCount = Math.max(...sites) + 1;
        const count = sites.length;
        const far = sentFar(plansFor(requestFor('allReduce', sites, count)), sites);
        const total = far.reduce((left, right) => left + right);
        expect(total).toBe(2 * (siteCount - 1) * count);
        if (siteCount !== 2) return;
        for (const site of [0, 1]) {
          const shares = far.filter((_, rank) => sites[rank] === site);
          expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 150 },
    );
  });

  it('takes 2(⌈log2 m⌉ + ⌈log2 k⌉) hops at most', () => {
    fc.assert(
      fc.property(anySites, (sites) => {
        const request = requestFor('allReduce', sites, sites.length);
        const sizes = [...new Set(sites)].map((site) => sites.filter((other) => other === site).length);
        const inputs = inputsFor(request, () => 1);
        const { hops } = interpret(plansFor(request), request, inputs, SUM, 1);
        const rounds = (size: number): number => Math.ceil(Math.log2(size));
        expect(hops).toBeLessThanOrEqual(2 * (rounds(Math.max(...sizes)) + rounds(sizes.length)));
      }),
      { numRuns: 150 },
    );
  });

  it('reads, for two sites of three, as it is drawn', () => {
    const plans = plansFor(requestFor('allReduce', [0, 0, 0, 1, 1, 1], 6));
    const chunk = transcriptOf(plans)
      .split('\n')
      .filter((line) => line.includes('chunk 0:'));
    expect(chunk).toEqual([
      'rank 0 chunk 0: reduce←1  reduce←2  reduce←3  send→3  send→2  send→1',
      'rank 1 chunk 0: send→0  replace←0',
      'rank 2 chunk 0: send→0  replace←0',
      'rank 3 chunk 0: reduce←4  reduce←5  send→0  replace←0  send→5  send→4',
      'rank 4 chunk 0: send→3  replace←3',
      'rank 5 chunk 0: send→3  replace←3',
    ]);
  });

  it('knows sites by number, in the order in which ranks name them', () => {
    expect(sitesOf(['eu', 'us', 'eu', '', 'us'])).toEqual([0, 1, 0, 2, 1]);
    for (const sites of [
      [0, 0],
      [1, 0, 0],
      [0, 2, 1],
      [0, -1, 0],
      [0, 0.5, 0],
    ]) {
      expect(() => makePlan({ ...requestFor('allReduce', [0, 0, 0], 3), sites }, 0)).toThrow(ArgumentError);
    }
  });
});
