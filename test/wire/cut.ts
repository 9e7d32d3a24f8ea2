/** Cutting a byte stream in pieces, as a network would. */
import fc from 'fast-check';

/** Lengths of successive pieces, used in turn: one byte at a time, a few, as large as reads are, or all at once. */
export const pieceLengths: fc.Arbitrary<readonly number[]> = fc.oneof(
  fc.constant([1]),
  fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 12 }),
  fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 500, max: 5_000 })), {
    minLength: 1,
    maxLength: 12,
  }),
  fc.constant([Number.MAX_SAFE_INTEGER]),
);

/**
 * Gives `push` the stream piece by piece until it finds something wrong, and returns that. Each piece lies in memory of
 * its own that is overwritten afterwards, as a read buffer is: who keeps a window on it will notice.
 */
export function pushInPieces(
  stream: Uint8Array,
  lengths: readonly number[],
  push: (piece: Uint8Array) => string | null,
): string | null {
  let at = 0;
  for (let turn = 0; at < stream.length; turn++) {
    const piece = stream.slice(at, at + lengths[turn % lengths.length]!);
    at += piece.length;
    const error = push(piece);
    if (error !== null) return error;
    piece.fill(0xee);
  }
  return null;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
