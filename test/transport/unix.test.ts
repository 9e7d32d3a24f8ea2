import { expect, test } from 'vitest';
import { unixTransport } from '../../src/transport/unix.ts';

test('a path that is too long gives the read buffer back, as every attempt that fails does', async () => {
  let freed = 0;
  const attempt = unixTransport.dial(
    { kind: 'unix', path: `/${'x'.repeat(200)}` },
    { timeoutMs: 1_000, readBuffer: new Uint8Array(64), onReadBufferFree: () => void freed++ },
  );
  await expect(attempt).rejects.toThrow('longer than');
  expect(freed).toBe(1);
});
