/** The last so many of something. */
export class Recent<T> {
  readonly #values: Set<T> = new Set();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(value: T): void {
    this.#values.add(value);
    if (this.#values.size <= this.#limit) return;
    for (const oldest of this.#values) {
      this.#values.delete(oldest);
      return;
    }
  }

  has(value: T): boolean {
    return this.#values.has(value);
  }

  /** Oldest first. */
  get values(): readonly T[] {
    return [...this.#values];
  }
}
