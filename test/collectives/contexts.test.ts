import { expect, test } from 'vitest';
import { Context } from '../../src/collectives/context.ts';
import { Contexts, parseId } from '../../src/collectives/contexts.ts';
import { Operation } from '../../src/collectives/operation.ts';
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
