/** Loads the kernels in Node, where their code is part of the JavaScript. */
import { KERNELS_WASM } from './generated/kernels-wasm.ts';
import { instantiateKernels } from './instantiate.ts';
import type { Kernels } from './kernels.ts';

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

/** As `instantiateKernels`. */
export function loadKernels(arenaBytes: number): Promise<Kernels> {
  return instantiateKernels(decodeBase64(KERNELS_WASM), arenaBytes);
}
