import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { NONCE_BYTES, type ProofLabel, prove, sameProof } from '../../src/transport/secure.ts';

interface Parts {
  readonly key: Uint8Array | string;
  readonly label: ProofLabel;
  readonly subject: string;
  readonly binding: Uint8Array;
  readonly own: Uint8Array;
  readonly theirs: Uint8Array;
}

const LABELS: readonly ProofLabel[] = ['coordinator', 'peer', 'dial', 'accept'];

const BASE: Parts = {
  key: 'token',
  label: 'dial',
  subject: 'default',
  binding: new Uint8Array(32).fill(7),
  own: new Uint8Array(NONCE_BYTES).fill(1),
  theirs: new Uint8Array(NONCE_BYTES).fill(2),
};

function proofOf({ key, label, ...parts }: Parts): Uint8Array {
  return prove(key, label, parts);
}

const bytes = fc.uint8Array({ minLength: 0, maxLength: 40 });
const parts: fc.Arbitrary<Parts> = fc.record({
  key: fc.oneof(fc.string({ minLength: 1 }), fc.uint8Array({ minLength: 32, maxLength: 32 })),
  label: fc.constantFrom(...LABELS),
  subject: fc.string(),
  binding: bytes,
  own: bytes,
  theirs: bytes,
});

describe('proofs', () => {
  test('the same parts give the same proof of 32 bytes', () => {
    fc.assert(
      fc.property(parts, (all) => {
        const proof = proofOf(all);
        expect(proof.length).toBe(32);
        expect(sameProof(proof, proofOf({ ...all, binding: all.binding.slice(), own: all.own.slice() }))).toBe(true);
      }),
    );
  });

  test.each<[string, Partial<Parts>]>([
    ['another key', { key: 'Token' }],
    ['no key', { key: '' }],
    ['another label', { label: 'accept' }],
    ['another subject', { subject: 'default2' }],
    ['another connection', { binding: new Uint8Array(32).fill(8) }],
    ['an unprotected connection', { binding: new Uint8Array(0) }],
    ['another nonce of the prover', { own: new Uint8Array(NONCE_BYTES).fill(3) }],
    ['another nonce of the other side', { theirs: new Uint8Array(NONCE_BYTES).fill(3) }],
    ['the nonces exchanged, as a reflection would', { own: BASE.theirs, theirs: BASE.own }],
  ])('%s gives another proof', (_, change) => {
    expect(sameProof(proofOf(BASE), proofOf({ ...BASE, ...change }))).toBe(false);
  });

  test('each label proves something else', () => {
    const proofs = LABELS.map((label) => Buffer.from(proofOf({ ...BASE, label })).toString('hex'));
    expect(new Set(proofs).size).toBe(LABELS.length);
  });

  test('bytes that move from one part to its neighbour give another proof', () => {
    const text = (value: string) => new Uint8Array(Buffer.from(value));
    const cuts: Parts[] = [
      { ...BASE, subject: 'ab', binding: text(''), own: text('cd'), theirs: text('ef') },
      { ...BASE, subject: 'abc', binding: text(''), own: text('d'), theirs: text('ef') },
      { ...BASE, subject: 'ab', binding: text('c'), own: text('d'), theirs: text('ef') },
      { ...BASE, subject: 'ab', binding: text(''), own: text('cde'), theirs: text('f') },
      { ...BASE, subject: 'abcdef', binding: text(''), own: text(''), theirs: text('') },
      { ...BASE, subject: '', binding: text('abcdef'), own: text(''), theirs: text('') },
      { ...BASE, subject: '', binding: text(''), own: text('abcdef'), theirs: text('') },
    ];
    const proofs = cuts.map((all) => Buffer.from(proofOf(all)).toString('hex'));
    expect(new Set(proofs).size).toBe(cuts.length);
  });

  test('different parts never give the same proof', () => {
    const asText = ({ key, label, subject, binding, own, theirs }: Parts) =>
      JSON.stringify([Buffer.from(key).toString('hex'), label, subject, [...binding], [...own], [...theirs]]);
    fc.assert(
      fc.property(parts, parts, (left, right) => {
        expect(sameProof(proofOf(left), proofOf(right))).toBe(asText(left) === asText(right));
      }),
    );
  });

  test('a proof is the HMAC-SHA-256 of its parts, each after its length: other implementations can make it', () => {
    const hmac = createHmac('sha256', 'token');
    hmac.update(Uint8Array.of(4, 0, 0, 0)).update('dial');
    hmac.update(Uint8Array.of(8, 0, 0, 0)).update('wörter!');
    hmac.update(Uint8Array.of(3, 0, 0, 0)).update(Uint8Array.of(7, 8, 9));
    hmac.update(Uint8Array.of(2, 0, 0, 0)).update(Uint8Array.of(1, 2));
    hmac.update(Uint8Array.of(0, 0, 0, 0));
    const parts = { binding: Uint8Array.of(7, 8, 9), own: Uint8Array.of(1, 2), theirs: new Uint8Array(0) };
    const proof = prove('token', 'dial', { subject: 'wörter!', ...parts });
    expect(Buffer.from(proof)).toEqual(hmac.digest());
  });

  test('a proof that differs in one bit, or in length, is not the same', () => {
    const proof = proofOf(BASE);
    for (let bit = 0; bit < proof.length * 8; bit++) {
      const forged = proof.slice();
      forged[bit >>> 3]! ^= 1 << (bit & 7);
      expect(sameProof(proof, forged)).toBe(false);
    }
    expect(sameProof(proof, proof.subarray(0, 31))).toBe(false);
    expect(sameProof(proof, new Uint8Array(0))).toBe(false);
  });
});
