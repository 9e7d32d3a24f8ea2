/**
 * What a peer lives through, written down for whoever watches the run from outside (`skein chaos`): one line of JSON per event,
 * appended at once to the file that SKEIN_OBSERVE names. A line that was written stays, however the process ends.
 */
import { createHash } from 'node:crypto';
import { openSync, writeSync } from 'node:fs';
import type { Report } from './collectives/call.ts';
import type { CollectiveKind } from './collectives/program.ts';
import type { TensorPart } from './tensor.ts';

interface MemberLine {
  readonly peerId: string;
  readonly rank: number;
}

export type ObservedEvent =
  | { readonly type: 'joined'; readonly peerId: string }
  | { readonly type: 'boundary'; readonly boundary: number; readonly epoch: number }
  | { readonly type: 'begun'; readonly kind: CollectiveKind }
  | { readonly type: 'view'; readonly epoch: number; readonly members: readonly MemberLine[] }
  | { readonly type: 'peer-lost'; readonly peer: string; readonly reason: string; readonly epoch: number }
  | { readonly type: 'slow-peer'; readonly peer: string; readonly waitedMs: number }
  | { readonly type: 'coordinator-lost' }
  | { readonly type: 'coordinator-back' }
  | { readonly type: 'evicted'; readonly reason: string }
  | {
      readonly type: 'settled';
      readonly report: Omit<Report, 'ranges'>;
      /** Of the result, where all members hold the same; null elsewhere. */
      readonly hash: string | null;
    }
  | { readonly type: 'failed'; readonly code: string; readonly message: string };

/** Milliseconds since 1970, with fractions. */
export type ObservedLine = ObservedEvent & { readonly at: number };

export class Observer {
  readonly #file: number;

  /** @throws Error when the file can't be opened */
  constructor(path: string) {
    this.#file = openSync(path, 'a');
  }

  note(event: ObservedEvent): void {
    const line: ObservedLine = { at: performance.timeOrigin + performance.now(), ...event };
    writeSync(this.#file, `${JSON.stringify(line)}\n`);
  }

  /** @param shared the result, where all members hold the same */
  settled(report: Report, shared: readonly TensorPart[] | null): void {
    const { ranges, ...rest } = report;
    this.note({ type: 'settled', report: rest, hash: shared === null ? null : hashOf(shared) });
  }
}

function hashOf(parts: readonly TensorPart[]): string {
  const hash = createHash('sha256');
  for (const { bytes } of parts) hash.update(bytes);
  return hash.digest('hex').slice(0, 16);
}
