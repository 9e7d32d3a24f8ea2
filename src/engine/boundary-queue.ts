/**
 * The boundaries at which the caller waits, in the order in which it came to them: each has a number, one more than the one before, and
 * ends with the coordinator's answer, when its time is up, or with the peer.
 */
import { QuorumError, type SkeinError, TimeoutError } from '../errors.ts';
import type { Clock } from '../transport/clock.ts';
import type { Admission } from './runtime-data.ts';

interface Waiter {
  readonly index: number;
  readonly minWorldSize: number;
  readonly resolve: (admission: Admission) => void;
  readonly reject: (error: SkeinError) => void;
  readonly stopTimer: () => void;
}

interface Surroundings {
  readonly clock: Clock;
  /** Asks the coordinator. */
  ask(index: number, minWorldSize: number): void;
  /** The view as it is now; null: there is none yet. */
  view(): { readonly epoch: number; readonly members: readonly unknown[] } | null;
}

export class BoundaryQueue {
  readonly #around: Surroundings;
  readonly #waiters: Waiter[] = [];

  constructor(around: Surroundings) {
    this.#around = around;
  }

  get isEmpty(): boolean {
    return this.#waiters.length === 0;
  }

  /** @param passed the last boundary that was passed */
  wait(passed: number, minWorldSize: number, timeoutMs: number): Promise<Admission> {
    const index = Math.max(passed, this.#waiters.at(-1)?.index ?? 0) + 1;
    return new Promise((resolve, reject) => {
      const stopTimer = this.#around.clock.schedule(timeoutMs, () => {
        this.#take(index);
        reject(this.#lateness(minWorldSize, timeoutMs));
      });
      this.#waiters.push({ index, minWorldSize, resolve, reject, stopTimer });
      this.#around.ask(index, minWorldSize);
    });
  }

  /** The answers may have been lost. */
  askAgain(): void {
    for (const { index, minWorldSize } of this.#waiters) this.#around.ask(index, minWorldSize);
  }

  /** A boundary is passed, at which the caller need not wait any more. */
  answer(index: number, makeAdmission: () => Admission): void {
    this.#take(index)?.resolve(makeAdmission());
  }

  fail(makeError: () => SkeinError): void {
    for (const waiter of this.#waiters.splice(0)) {
      waiter.stopTimer();
      waiter.reject(makeError());
    }
  }

  #take(index: number): Waiter | undefined {
    const at = this.#waiters.findIndex((waiter) => waiter.index === index);
    if (at < 0) return undefined;
    const [waiter] = this.#waiters.splice(at, 1);
    waiter?.stopTimer();
    return waiter;
  }

  #lateness(minWorldSize: number, timeoutMs: number): SkeinError {
    const view = this.#around.view();
    const present = view?.members.length ?? 0;
    const context = { phase: 'boundary', epoch: view?.epoch, elapsed: timeoutMs };
    const quorum = `A boundary waited ${timeoutMs} ms for ${minWorldSize} members; there are ${present}. Start more peers, or lower \`minWorldSize\`.`;
    const silence = `The coordinator did not answer at a boundary within ${timeoutMs} ms.`;
    return present < minWorldSize ? new QuorumError(quorum, context) : new TimeoutError(silence, context);
  }
}
