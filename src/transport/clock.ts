/** Time, from outside: the real one, or one that a simulation moves by hand. */

export interface Clock {
  /** Milliseconds, monotonic. */
  now(): number;
  /** Runs `task` once, no sooner than after `delayMs` and never in the same turn; returns what cancels it. */
  schedule(delayMs: number, task: () => void): () => void;
}

/** Runs `task` again and again, `ms` after it last ended; returns what stops it. */
export function every(clock: Clock, ms: number, task: () => void): () => void {
  const turn = () => {
    cancel = clock.schedule(ms, turn);
    task();
  };
  let cancel = clock.schedule(ms, turn);
  return () => cancel();
}

export const systemClock: Clock = {
  now: () => performance.now(),
  schedule(delayMs, task) {
    if (delayMs <= 0) {
      const handle = setImmediate(task);
      return () => clearImmediate(handle);
    }
    const handle = setTimeout(task, delayMs);
    return () => clearTimeout(handle);
  },
};

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly task: () => void;
  cancelled: boolean;
}

/**
 * A clock that stands still until it is told to go on. What is due at the same instant runs in the order in which it was
 * scheduled, so a simulation on it is the same at every run.
 */
export class VirtualClock implements Clock {
  /** A binary heap by time, then by order. */
  readonly #heap: Entry[] = [];
  #now = 0;
  #scheduled = 0;

  now(): number {
    return this.#now;
  }

  schedule(delayMs: number, task: () => void): () => void {
    const at = this.#now + Math.max(0, delayMs);
    const entry: Entry = { at, order: this.#scheduled++, task, cancelled: false };
    this.#push(entry);
    return () => {
      entry.cancelled = true;
    };
  }

  /** Goes to the next task and runs it; false when there is none. */
  step(): boolean {
    for (let entry = this.#pop(); entry !== undefined; entry = this.#pop()) {
      if (entry.cancelled) continue;
      this.#now = entry.at;
      entry.task();
      return true;
    }
    return false;
  }

  /** Runs everything that is due within the next `ms`, and stands there. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (let next = this.#heap[0]; next !== undefined && next.at <= end; next = this.#heap[0]) this.step();
    this.#now = Math.max(this.#now, end);
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): Entry | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function before(left: Entry, right: Entry): boolean {
  return left.at < right.at || (left.at === right.at && left.order < right.order);
}
