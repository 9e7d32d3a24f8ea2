/** The present view, and those before it in which calls are still open: finds a call by the id that the coordinator names it by. */
import { hashTag } from '../wire/frame.ts';
import { type Context, findOpen } from './context.ts';
import type { Operation } from './operation.ts';

/** The parts of a call's id, `generation:tag:sequence`; the tag itself may contain colons. */
export function parseId(id: string): { generation: number; tag: string; sequence: number } {
  const first = id.indexOf(':');
  const last = id.lastIndexOf(':');
  return {
    generation: Number(id.slice(0, first)),
    tag: id.slice(first + 1, last),
    sequence: Number(id.slice(last + 1)),
  };
}

export class Contexts {
  readonly #byGeneration: Map<number, Context> = new Map();
  #current: Context | null = null;

  /** The view that calls belong to from now on; null before the first. */
  get current(): Context | null {
    return this.#current;
  }

  /** Makes a view the present one. */
  enter(context: Context): void {
    const previous = this.#current;
    this.#current = context;
    this.#byGeneration.set(context.generation, context);
    if (previous !== null) this.#forget(previous);
  }

  get(generation: number): Context | undefined {
    return this.#byGeneration.get(generation);
  }

  /** Oldest first. A view in which the last call ends meanwhile may be gone before its turn. */
  [Symbol.iterator](): IterableIterator<Context> {
    return this.#byGeneration.values();
  }

  /** Every open call. */
  open(): Operation[] {
    const all: Operation[] = [];
    for (const context of this) if (context.openCount > 0) all.push(...context.operations());
    return all;
  }

  get openCount(): number {
    let count = 0;
    for (const context of this) count += context.openCount;
    return count;
  }

  /** Oldest generation in which a call is open, or the present one. */
  get oldestGeneration(): number {
    let oldest = this.#current?.generation ?? 0;
    for (const { generation } of this) oldest = Math.min(oldest, generation);
    return oldest;
  }

  /** An open call. */
  byId(id: string): Operation | undefined {
    const { generation, tag, sequence } = parseId(id);
    const state = this.#byGeneration.get(generation)?.find(hashTag(tag));
    return state?.tag === tag ? findOpen(state, sequence) : undefined;
  }

  /** A call has ended. */
  leave(operation: Operation): void {
    const { context } = operation;
    if (context?.leave(operation) === true) this.#forget(context);
  }

  #forget(context: Context): void {
    if (context !== this.#current && context.openCount === 0) this.#byGeneration.delete(context.generation);
  }
}
