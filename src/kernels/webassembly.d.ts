/** The part of the WebAssembly interface that the loader uses; neither the ES2022 nor the Node types have it. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { initial: number; maximum: number });
    readonly buffer: ArrayBuffer;
  }
  interface Instance {
    readonly exports: Readonly<Record<string, unknown>>;
  }
  function validate(bytes: Uint8Array<ArrayBuffer>): boolean;
  function instantiate(
    bytes: Uint8Array<ArrayBuffer>,
    imports: { readonly env: { readonly memory: Memory } },
  ): Promise<{ readonly instance: Instance }>;
}
