/** What a guard finds in an input, and that a call which it stops sends nothing. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { poisonIn } from '../../src/collectives/guard.ts';
import { Pieces } from '../../src/collectives/pieces.ts';
import { Workspace } from '../../src/collectives/workspace.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { LonePeer, SUM } from './lone.ts';

const workspace = new Workspace(await loadKernels(8 * 1024 * 1024), 1024);

function bytesOf(values: Float32Array | Float64Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The memory of an input, in two pieces. */
function piecesOf(values: Float32Array | Float64Array | Uint16Array): Pieces {
  const cut = values.length >> 1;
  return new Pieces([bytesOf(values.subarray(0, cut)), bytesOf(values.subarray(cut))]);
}

describe('a guard', () => {
  test('lets every finite input of the norm pass, and nothing above it', () => {
    const cases = fc.record({
      values: fc.array(fc.integer({ min: -1e6, max: 1e6 }), { maxLength: 60 }),
      dtype: fc.constantFrom('f32' as const, 'f64' as const),
      above: fc.constantFrom(0.9, 1.1),
    });
    fc.assert(
      fc.property(cases, ({ values, dtype, above }) => {
        const input = dtype === 'f32' ? Float32Array.from(values) : Float64Array.from(values);
        const norm = Math.hypot(...input);
        const guard = { maxNorm: norm * above, tensors: [input.length] };
        const found = poisonIn(workspace, dtype, piecesOf(input), guard);
        if (above > 1 || norm === 0) expect(found).toBeNull();
        else expect(found).toMatch(/^its Euclidean norm is .*, above the `maxNorm` of /);
      }),
    );
  });

  test.each(['f32', 'f64'] as const)(
    'finds what is not finite in %s, wherever it is, by tensor and element',
    (dtype) => {
      const count = 70_001;
      const cases = fc.record({
        at: fc.nat(count - 1),
        first: fc.nat(count),
        value: fc.constantFrom(Number.NaN, -1 / 0, 1 / 0),
      });
      const input = dtype === 'f32' ? new Float32Array(count).fill(3) : new Float64Array(count).fill(1e200);
      fc.assert(
        fc.property(cases, ({ at, first, value }) => {
          const before = input[at]!;
          input[at] = value;
          const found = poisonIn(workspace, dtype, piecesOf(input), { maxNorm: null, tensors: [first, count - first] });
          input[at] = before;
          expect(found).toBe(
            at < first ? `element ${at} of tensor 0 is ${value}` : `element ${at - first} of tensor 1 is ${value}`,
          );
          expect(
            poisonIn(workspace, dtype, piecesOf(input), { maxNorm: null, tensors: [first, count - first] }),
          ).toBeNull();
        }),
        { numRuns: 30 },
      );
    },
  );

  test('reads 16-bit floats', () => {
    const one = { bf16: 0x3f80, f16: 0x3c00 };
    const infinite = { bf16: 0xff80, f16: 0xfc00 };
    for (const dtype of ['bf16', 'f16'] as const) {
      const input = new Uint16Array(40_000).fill(one[dtype]);
      const tensors = [input.length];
      expect(poisonIn(workspace, dtype, piecesOf(input), { maxNorm: 200, tensors })).toBeNull();
      expect(poisonIn(workspace, dtype, piecesOf(input), { maxNorm: 199, tensors })).toMatch(/norm is 200,/);
      input[39_999] = infinite[dtype];
      const found = poisonIn(workspace, dtype, piecesOf(input), { maxNorm: null, tensors });
      expect(found).toBe('element 39999 of tensor 0 is -Infinity');
    }
  });

  test('takes squares that overflow for a large norm, not for a stranger', () => {
    const input = Float64Array.of(1e200, 1e200);
    expect(poisonIn(workspace, 'f64', piecesOf(input), { maxNorm: 1e300, tensors: [2] })).toMatch(/norm is Infinity/);
  });
});

describe('a call that its guard stops', () => {
  const members = ['a', 'b'].map((peerId) => ({ peerId, site: '', place: 0 }));
  const member = (): LonePeer => {
    const peer = new LonePeer('a', workspace);
    peer.collectives.onView({ epoch: 1, generation: 1, boundary: 1, members, cuts: [] });
    return peer;
  };
  const input = new Float32Array(10).fill(1);
  input[7] = Number.NaN;
  const guard = { maxNorm: null, tensors: [10] };

  test('withdraws from it, sends nothing else, and touches no tensor', () => {
    const peer = member();
    const call = peer.call({ ...SUM, guard }, bytesOf(input), 40);
    expect(call.ending).toBe('SKEIN_POISONED_INPUT');
    expect(peer.controls).toEqual([
      { type: 'withdraw', id: '1::0', generation: 1, reason: expect.stringContaining('element 7 of tensor 0 is NaN') },
    ]);
    expect(peer.sentBytes).toBe(0);
    expect(peer.damage()).toBeNull();
    // The next call has the next number.
    peer.call({ ...SUM, guard }, bytesOf(new Float32Array(10)), 40);
    expect(peer.sentBytes).toBeGreaterThan(0);
    expect(peer.calls.map(({ ending }) => ending)).toEqual(['SKEIN_POISONED_INPUT', null]);
  });

  test('is only one to whose result it contributes', () => {
    const peer = member();
    const received = { ...SUM, kind: 'broadcast', op: null, root: 'b', guard } as const;
    const sent = { ...received, root: 'a' } as const;
    expect(peer.call(received, bytesOf(input), 40).ending).toBeNull();
    expect(peer.call(sent, bytesOf(input), 40).ending).toBe('SKEIN_POISONED_INPUT');
  });
});
