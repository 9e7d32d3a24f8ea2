/**
 * Knows every input of every peer, and so what each result must be. It is told what each call came to, and throws when one of
 * the invariants of ARCHITECTURE.md is broken.
 */
import type { AlgorithmLabel, Report } from '../../src/index.ts';
import { type Call, expected, isAsMade, type Numbers, tolerance } from './workload.ts';

export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

interface Settled {
  readonly boundary: number;
  readonly index: number;
  readonly epoch: number;
  readonly contributors: readonly string[];
  /** Chosen by each for itself. */
  readonly algorithm: AlgorithmLabel;
  /** In words, to be compared. */
  readonly ranges: string;
  /** The result of a call whose result is not known to the last bit. */
  readonly bits: string;
  readonly peerId: string;
}

/** Whether the first `count` values have the same bits. */
function same(left: Numbers, right: Numbers, count: number): boolean {
  return bytesOf(left, count).equals(bytesOf(right, count));
}

function bytesOf(values: Numbers, count: number): Buffer {
  return Buffer.from(values.buffer, values.byteOffset, Math.min(count, values.length) * values.BYTES_PER_ELEMENT);
}

/** The first element of `start` to `end` that differs from what is wanted by more than it may; −1: none. */
function firstWrong(actual: Numbers, wanted: Numbers, start: number, end: number, most: number): number {
  if (most === 0 && same(actual.subarray(start, end), wanted.subarray(start, end), end - start)) return -1;
  for (let index = start; index < end; index++) {
    const is = actual[index];
    const isNear = most > 0 && is !== undefined && Math.abs(is - wanted[index]!) <= most;
    if (!isNear && !Object.is(is, wanted[index])) return index;
  }
  return -1;
}

export class Oracle {
  readonly #settled: Map<string, readonly Settled[]> = new Map();
  readonly #epochs: Map<string, number> = new Map();
  #amnesia = false;
  succeeded = 0;
  failed = 0;
  retried = 0;
  salvaged = 0;
  excluded = 0;

  /** The coordinator was restarted without its store. */
  onAmnesia(): void {
    this.#amnesia = true;
  }

  /** A peer has come to a view; what is wrong with that, or null. */
  onView(peerId: string, epoch: number): string | null {
    const before = this.#epochs.get(peerId) ?? 0;
    this.#epochs.set(peerId, epoch);
    return epoch < before ? `epochs: ${peerId} went from epoch ${before} back to ${epoch}` : null;
  }

  onSuccess(call: Call, report: Report): void {
    this.succeeded += 1;
    if (report.retries > 0) this.retried += 1;
    const { planned, peerId } = call;
    const { id, epoch, contributors, algorithm } = report;
    const title = `${planned.kind} ${planned.index} of step ${planned.boundary} (${id}) on ${peerId}`;
    if (!contributors.includes(peerId)) throw new InvariantError(`agreement: ${title} succeeded without this peer`);
    if (new Set(contributors).size !== contributors.length || report.worldSize !== contributors.length)
      throw new InvariantError(`agreement: ${title} reports the contributors ${contributors.join(', ')}`);
    const { boundary, index } = planned;
    const ranges = report.ranges.map((one) => `${one.start}-${one.end} of ${one.contributors}`).join('; ');
    const bits = planned.codec === 'int8' ? bytesOf(call.output, planned.count).toString('base64') : '';
    const now: Settled = { boundary, index, epoch, contributors, algorithm, ranges, bits, peerId };
    const earlier = this.#settled.get(id) ?? [];
    this.#settled.set(id, [...earlier, now]);
    for (const before of earlier) {
      // Who returned from an eager call and is gone since can tell nobody: the others may have redone it without it.
      const isRedone = planned.consistency === 'eager' && !contributors.includes(before.peerId);
      if (isRedone && before.epoch < epoch) continue;
      // Peers that a coordinator without memory found before the members came back are a run of their own.
      const isOther = this.#amnesia && !before.contributors.some((one) => contributors.includes(one));
      if (isOther) continue;
      for (const key of ['boundary', 'index', 'epoch', 'contributors', 'algorithm', 'ranges', 'bits'] as const) {
        if (before[key] === now[key] || `${before[key]}` === `${now[key]}`) continue;
        throw new InvariantError(
          `agreement: ${title} has ${key} ${now[key]}, but on ${before.peerId} it has ${before[key]}`,
        );
      }
    }
    this.#checkRanges(call, report);
    const wanted = report.ranges.length > 0 ? null : expected(call, report);
    const at =
      wanted === null ? -1 : firstWrong(call.output, wanted, 0, wanted.length, tolerance(planned, contributors.length));
    if (wanted !== null && at >= 0) {
      throw new InvariantError(
        `exactness: element ${at} of ${title} is ${call.output[at]} where ${wanted[at]} is the result of ${contributors.join(', ')}`,
      );
    }
    if (call.input !== call.output) this.#checkInput(call, 'although it is not where the result goes');
    this.#checkHanded(call, title);
  }

  /** What a stream handed back last of each element must be the result. */
  #checkHanded({ handed, output, planned }: Call, title: string): void {
    if (handed === null) return;
    const { times, values } = handed;
    const most = planned.inPlace ? 1 : Number.POSITIVE_INFINITY;
    const at = times.findIndex((count) => count < 1 || count > most);
    if (at >= 0) throw new InvariantError(`exactness: ${title} handed back element ${at} ${times[at]} times`);
    if (!same(values, output, output.length))
      throw new InvariantError(`exactness: ${title} handed back values that are not its result`);
  }

  /** Salvaged: each range must be the result of just those who are named for it. */
  #checkRanges(call: Call, { id, ranges, contributors, algorithm }: Report): void {
    if (ranges.length === 0) return;
    this.salvaged += 1;
    const { planned, peerId, output } = call;
    const title = `${planned.kind} ${planned.index} of step ${planned.boundary} (${id}) on ${peerId}`;
    let at = 0;
    for (const range of ranges) {
      if (range.start !== at || range.end <= range.start)
        throw new InvariantError(`agreement: ${title} reports ranges with a gap at ${at}`);
      at = range.end;
      if (!contributors.every((one) => range.contributors.includes(one)))
        throw new InvariantError(`agreement: ${title} reports a range without one of ${contributors.join(', ')}`);
      const wanted = expected(call, { algorithm, contributors: range.contributors })!; // only an all-reduce is salvaged
      const most = tolerance(planned, range.contributors.length);
      const index = firstWrong(output, wanted, range.start, range.end, most);
      if (index < 0) continue;
      throw new InvariantError(
        `exactness: element ${index} of ${title} is ${output[index]} where ${wanted[index]} is the result of ${range.contributors.join(', ')}`,
      );
    }
    if (at !== planned.count) throw new InvariantError(`agreement: ${title} reports ranges of ${at} elements`);
  }

  onFailure(call: Call, code: string | null): void {
    this.failed += 1;
    if (code === 'SKEIN_EXCLUDED') {
      this.excluded += 1;
      if (call.planned.stragglers !== 'exclude')
        throw new InvariantError(`agreement: a call on ${call.peerId} that waits for all was excluded`);
    }
    this.#checkInput(call, 'by a call that failed');
  }

  #checkInput(call: Call, why: string): void {
    if (isAsMade(call)) return;
    const { planned, peerId } = call;
    throw new InvariantError(
      `atomicity: the input of ${planned.kind} ${planned.index} of step ${planned.boundary} on ${peerId} was changed ${why}`,
    );
  }
}
