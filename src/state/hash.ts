/** The hash of shared state: XXH3 in 128 bits. It finds every accident; it is no defence against a member that forges. */
import { createXXHash128, type IHasher } from 'hash-wasm';

let loading: Promise<IHasher> | null = null;

export class Hasher {
  readonly #hasher: IHasher;

  /** The same one for all of a thread: nobody keeps it over a turn. */
  static async load(): Promise<Hasher> {
    loading ??= createXXHash128();
    return new Hasher(await loading);
  }

  private constructor(hasher: IHasher) {
    this.#hasher = hasher;
  }

  /** `HASH_BYTES` long. @param data a text counts as UTF-8 */
  of(data: Uint8Array | string): Uint8Array {
    return this.#hasher.init().update(data).digest('binary');
  }
}
