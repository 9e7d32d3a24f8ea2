import { expect, test } from 'vitest';
import { Context } from '../../src/collectives/context.ts';
import { Contexts, parseId } from '../../src/collectives/contexts.ts';
import { Operation } from '../../src/collectives/operation.ts';
import { MAX_OPEN_COLLECTIVES } from '../../src/wire/limits.ts';
import { SUM } from './lone.ts';

const LISTENER = { onProgress: () => undefined, onPart: () => undefined, onSettled: () => undefined };

function view(generation: number): Context {
  const members = [{ peerId: 'a', site: '', place: 0 }];
  return new Context({ epoch: generation, generation, boundary: generation, members, cuts: [] });
}

/** Makes a call in the present view. */
function enter(contexts: Contexts, tag: string): Operation {
  const operation = new Operation({ ...SUM, tag, input: [], output: [] }, LISTENER, 0);
  const context = contexts.current!;
  context.enter(operation, context.tag(tag)!);
  return operation;
}

test('a view is there as long as it is the present one or a call is open in it', () => {
  const contexts = new Contexts();
  contexts.enter(view(1));
  const [first, second] = [enter(contexts, 'x'), enter(contexts, 'y')];
  contexts.enter(view(4));
  contexts.enter(view(7)); // nothing was ever open in 4
  expect([...contexts].map(({ generation }) => generation)).toEqual([1, 7]);
  contexts.leave(first);
  contexts.leave(first); // has left before
  expect([contexts.openCount, contexts.oldestGeneration]).toEqual([1, 1]);
  contexts.leave(second);
  expect([contexts.openCount, contexts.oldestGeneration]).toEqual([0, 7]);
});

test('a call made late finds what was decided on it: that it goes on without somebody, or has failed', () => {
  const contexts = new Contexts();
  contexts.enter(view(1));
  const context = contexts.current!;
  const exclusion = { id: '1:x:1', epoch: 2, peers: ['b'] };
  const verdict = { code: 'withdrawn', message: 'no', peerId: 'b' } as const;
  context.foretellExclusion('x', 1, exclusion);
  context.foretellVerdict('x', 2, verdict);
  context.foretellExclusion('x', 2, exclusion); // it has failed, with or without somebody
  const enterNext = () => {
    const operation = new Operation({ ...SUM, tag: 'x', input: [], output: [] }, LISTENER, 0);
    return { verdict: context.enter(operation, context.tag('x')!), exclusion: operation.exclusion };
  };
  expect([enterNext(), enterNext(), enterNext(), enterNext()]).toEqual([
    { verdict: null, exclusion: null },
    { verdict: null, exclusion },
    { verdict, exclusion: null },
    { verdict: null, exclusion: null },
  ]);
  // A call that was made here is told itself.
  context.foretellVerdict('x', 3, verdict);
  context.foretellVerdict('x', 4, verdict);
  expect(enterNext().verdict).toBe(verdict);
});

test('decisions on calls that were not made here are kept for so many, whatever their tags and kinds', () => {
  const context = view(1);
  const verdict = { code: 'withdrawn', message: 'no', peerId: 'b' } as const;
  for (let sequence = 0; sequence < MAX_OPEN_COLLECTIVES; sequence++) {
    if (sequence % 2 === 0) context.foretellVerdict('x', sequence, verdict);
    else context.foretellExclusion('y', sequence, { id: `1:y:${sequence}`, epoch: 2, peers: ['b'] });
  }
  const verdictOn = (tag: string) => {
    const operation = new Operation({ ...SUM, tag, input: [], output: [] }, LISTENER, 0);
    return context.enter(operation, context.tag(tag)!);
  };
  context.foretellVerdict('z', 0, verdict);
  expect(verdictOn('z')).toBeNull();
  expect(verdictOn('x')).toBe(verdict); // which makes room for one
  context.foretellVerdict('z', 1, verdict);
  context.foretellVerdict('z', 2, verdict);
  expect([verdictOn('z'), verdictOn('z')]).toEqual([verdict, null]);
});

test.each(['', 'gradients', 'a:b:3', ':', '9:'])('a call is found by its id with the tag %j', (tag) => {
  const contexts = new Contexts();
  contexts.enter(view(3));
  enter(contexts, tag);
  const operation = enter(contexts, tag);
  expect(parseId(operation.id)).toEqual({ generation: 3, tag, sequence: 1 });
  expect(contexts.byId(operation.id)).toBe(operation);
  contexts.leave(operation);
  expect(contexts.byId(operation.id)).toBeUndefined();
});
