/** What the peers of the mixed group do, in Node and in a tab, and what must come of it: their inputs are known to all. */
import type { JoinOptions } from 'skein';
import type { PeerScope } from '../harness/peer-process.ts';

/** One all-reduce that has succeeded, as the peer tells it. */
export interface Result {
  readonly peerId: string;
  readonly boundary: number;
  readonly id: string;
  readonly epoch: number;
  readonly contributors: readonly string[];
  readonly retries: number;
  /** Of the whole result, to the bit. */
  readonly hash: number;
  /** Of its even elements, whose sums are exact. */
  readonly exact: number;
  /** Some of its odd elements, whose sums are rounded. */
  readonly samples: readonly number[];
}

export interface Life {
  readonly address: string;
  readonly options: JoinOptions;
  /** Elements of a tensor. */
  readonly count: number;
  /** The text of `arithmetic`. */
  readonly arithmetic: string;
}

/** Only its text crosses to the peers. */
export function arithmetic() {
  const PRIME = 0x01000193;
  const START = 0x811c9dc5;
  const SAMPLES = 50;

  /** Of one peer's input at one boundary. */
  function seedOf(peerId: string, boundary: number): number {
    let seed = START;
    for (const character of `${peerId} ${boundary}`) seed = Math.imul(seed ^ character.charCodeAt(0), PRIME);
    return seed;
  }

  /** Even: a whole number below 2^20, so that sums of few are exact in any order. Odd: one with more bits than an f32 has. */
  function elementOf(seed: number, index: number): number {
    const mixed = Math.imul((index + 1) ^ seed, 0x9e3779b1);
    const word = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b) >>> 0;
    return index % 2 === 0 ? word >>> 12 : word / 2 ** 20;
  }

  function hashOf(tensor: Float32Array, stride: number): number {
    const words = new Uint32Array(tensor.buffer, tensor.byteOffset, tensor.length);
    let hash = START;
    for (let index = 0; index < words.length; index += stride) hash = Math.imul(hash ^ words[index]!, PRIME);
    return hash >>> 0;
  }

  function samplesOf(tensor: Float32Array): number[] {
    const stride = 2 * Math.floor(tensor.length / 2 / SAMPLES);
    return Array.from({ length: SAMPLES }, (_, sample) => tensor[sample * stride + 1]!);
  }

  return { seedOf, elementOf, hashOf, samplesOf };
}

/** Runs in the peer: joins, all-reduces step by step and tells each result, until it is told to stop; then it leaves. */
export async function live(
  { skein, state, tell }: PeerScope,
  { address, options, count, arithmetic: text }: Life,
): Promise<void> {
  // The text is that of `arithmetic`.
  const { seedOf, elementOf, hashOf, samplesOf } = new Function(`return (${text})();`)() as ReturnType<
    typeof arithmetic
  >;
  state['stop'] = false;
  const group = await skein.join(address, options);
  state.group = group;
  const tensor = skein.sharedTensor('f32', count);
  for await (const { boundary } of group.steps()) {
    const seed = seedOf(group.peerId, boundary);
    for (let index = 0; index < count; index++) tensor[index] = elementOf(seed, index);
    const { id, epoch, contributors, retries } = await group.allReduce(tensor);
    const bits = { hash: hashOf(tensor, 1), exact: hashOf(tensor, 2), samples: samplesOf(tensor) };
    tell(JSON.stringify({ peerId: group.peerId, boundary, id, epoch, contributors, retries, ...bits }));
    if (state['stop'] === true) break;
  }
  await group.leave();
}

/** What is wrong with results, all of one id: in words, or null. */
export function faultOf(results: readonly Result[], count: number): string | null {
  const { seedOf, elementOf, hashOf, samplesOf } = arithmetic();
  const [first] = results;
  if (first === undefined) return null;
  const alike = ({ peerId, retries, ...rest }: Result) => JSON.stringify(rest);
  const other = results.find((result) => alike(result) !== alike(first));
  if (other !== undefined) return `${alike(first)} on ${first.peerId}, but ${alike(other)} on ${other.peerId}`;
  const stranger = results.find(({ peerId }) => !first.contributors.includes(peerId));
  if (stranger !== undefined) return `${first.id}: ${stranger.peerId} has the result, but no part in it`;
  if (new Set(first.contributors).size < first.contributors.length) return `${first.id}: somebody is in it twice`;
  const sums = new Float64Array(count);
  for (const contributor of first.contributors) {
    const seed = seedOf(contributor, first.boundary);
    for (let index = 0; index < count; index++) sums[index]! += Math.fround(elementOf(seed, index));
  }
  const wanted = Float32Array.from(sums);
  if (hashOf(wanted, 2) !== first.exact) return `${first.id}: it is not the sum of what its contributors gave`;
  // Each addition rounds by half a unit in the last place at most; all values are positive.
  const most = first.contributors.length * 2 ** -24;
  const far = samplesOf(wanted).findIndex(
    (sample, index) => !(Math.abs(first.samples[index]! - sample) <= most * sample),
  );
  return far < 0 ? null : `${first.id}: sample ${far} is ${first.samples[far]}`;
}
