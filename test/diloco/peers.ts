/** What the tests of DiLoCo have in common: members whose inner steps are arithmetic that can be followed. */
import { type Group, TimeoutError } from 'skein';
import { createDiloco, type Diloco, type DilocoOptions } from 'skein/diloco';
import { expect } from 'vitest';

/** Plain averaging: what the peers' steps changed, each exactly once, is what the shared parameters move by. */
export const AVERAGING = { learningRate: 1, momentum: 0 } as const;

export interface Trainee {
  readonly diloco: Diloco;
  readonly parameters: { readonly x: Float32Array };
}

export async function trainee(group: Group, options: DilocoOptions, x: readonly number[] = [0]): Promise<Trainee> {
  const parameters = { x: Float32Array.from(x) };
  return { diloco: await createDiloco(group, parameters, options), parameters };
}

/** Adds `change` in every inner step until so many rounds are done. */
export async function trainUntil({ diloco, parameters }: Trainee, rounds: number, change: number): Promise<void> {
  while (diloco.round < rounds) {
    for (let at = 0; at < parameters.x.length; at++) parameters.x[at]! += change;
    await diloco.step();
  }
}

/** The group with one method replaced. */
export function replacing<N extends 'admit' | 'allReduce' | 'allToAll' | 'allGather' | 'broadcast'>(
  group: Group,
  name: N,
  make: (real: Group[N]) => Group[N],
): Group {
  const replaced = make(group[name].bind(group) as Group[N]); // of the same type, with its receiver
  return new Proxy(group, {
    get(target, wanted) {
      if (wanted === name) return replaced;
      const value: unknown = Reflect.get(target, wanted, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** This peer withdraws from its all-reduces of these numbers, counted from 0: they fail on all members. */
export function withdrawing(group: Group, numbers: readonly number[]): Group {
  let calls = 0;
  return replacing(group, 'allReduce', (real) => (tensor, options) => {
    const signal = AbortSignal.abort(new TimeoutError('withdrawn by the test'));
    return real(tensor, numbers.includes(calls++) ? { ...options, signal } : options);
  });
}

/** As `withdrawing`, of the all-to-alls that gossip makes. */
export function withdrawingFromGossip(group: Group, numbers: readonly number[]): Group {
  let calls = 0;
  return replacing(group, 'allToAll', (real) => (tensor, out, options) => {
    const signal = AbortSignal.abort(new TimeoutError('withdrawn by the test'));
    return real(tensor, out, numbers.includes(calls++) ? { ...options, signal } : options);
  });
}

/** This peer sees these all-reduces fail, though they succeed on the others: a time-out while the commit is on its way. */
export function misinformed(group: Group, numbers: readonly number[]): Group {
  let calls = 0;
  return replacing(group, 'allReduce', (real) => async (tensor, options) => {
    const isWrong = numbers.includes(calls++);
    const out = Float32Array.from(options?.out as Float32Array); // DiLoCo's is one
    const report = await real(tensor, isWrong ? { ...options, out } : options);
    if (isWrong) throw new TimeoutError('the commit came too late');
    return report;
  });
}

/** As `misinformed`, of the all-gathers: these are censuses. */
export function misinformedOfCensus(group: Group, numbers: readonly number[]): Group {
  let calls = 0;
  return replacing(group, 'allGather', (real) => async (tensor, out, options) => {
    const isWrong = numbers.includes(calls++);
    const report = await real(tensor, out, options);
    if (isWrong) throw new TimeoutError('the commit came too late');
    return report;
  });
}

/** As `withdrawing`, of the censuses. */
export function withdrawingFromCensus(group: Group, numbers: readonly number[]): Group {
  let calls = 0;
  return replacing(group, 'allGather', (real) => (tensor, out, options) => {
    const signal = AbortSignal.abort(new TimeoutError('withdrawn by the test'));
    return real(tensor, out, numbers.includes(calls++) ? { ...options, signal } : options);
  });
}

/** As `withdrawing`, of the broadcasts that hand on state. */
export function withdrawingFromState(group: Group, numbers: readonly number[]): Group {
  let calls = 0;
  return replacing(group, 'broadcast', (real) => (tensor, options) => {
    const signal = AbortSignal.abort(new TimeoutError('withdrawn by the test'));
    return real(tensor, numbers.includes(calls++) ? { ...options, signal } : options);
  });
}

export function expectEqualBits(trainees: readonly Trainee[]): void {
  expect(new Set(trainees.map(({ diloco }) => diloco.hash)).size).toBe(1);
}
