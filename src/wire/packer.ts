/**
 * MessagePack by the fastest library for Node. Browsers load a smaller one in its place (`packer-browser.ts`). What both write is plain
 * MessagePack, and either reads the other's.
 */
import { Packr } from 'msgpackr';

const packr = new Packr({ useRecords: false, mapsAsObjects: true, copyBuffers: false });

/** @returns memory that the next call may write to */
export function pack(value: object): Uint8Array {
  return packr.pack(value);
}

/** Bytes in it are views of `body`. Throws where that is no MessagePack. */
export function unpack(body: Uint8Array): unknown {
  return packr.unpack(body);
}
