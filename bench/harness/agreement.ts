/** Whether peers that report the same collective agree on what it was. */

export interface ReportedResult {
  readonly id: string;
  readonly epoch: number;
  readonly contributors: readonly string[];
}

/** Collectives that are remembered: peers report one within a few steps of each other. */
const MAX_REMEMBERED = 10_000;

export class Agreement {
  readonly #known: Map<string, ReportedResult & { readonly peerId: string }> = new Map();

  /** Takes one peer's report; what is wrong with it, or null. */
  add(peerId: string, result: ReportedResult): string | null {
    const { id, epoch, contributors } = result;
    if (!contributors.includes(peerId)) return `${peerId} reports ${id}, to which it did not contribute`;
    const known = this.#known.get(id);
    if (known === undefined) {
      this.#known.set(id, { ...result, peerId });
      if (this.#known.size > MAX_REMEMBERED) for (const oldest of this.#known.keys()) return this.#forget(oldest);
      return null;
    }
    if (known.epoch === epoch && known.contributors.join() === contributors.join()) return null;
    const texts = [{ ...result, peerId }, known].map(
      (one) => `epoch ${one.epoch} of ${one.contributors.join(', ')} on ${one.peerId}`,
    );
    return `${id} is of ${texts.join(', but of ')}`;
  }

  #forget(id: string): null {
    this.#known.delete(id);
    return null;
  }
}
