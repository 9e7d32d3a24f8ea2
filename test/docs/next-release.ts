/** A coordinator that speaks the next version of the protocol, to a peer of this one. In a file of its own: what is mocked is so for all that a file imports. */
import { vi } from 'vitest';

vi.mock('../../src/wire/limits.ts', async (original) => {
  const limits = await original<typeof import('../../src/wire/limits.ts')>();
  return { ...limits, PROTOCOL_VERSION: limits.PROTOCOL_VERSION + 1 };
});

export const { Coordinator: NextCoordinator } = await import('../../src/coordinator.ts');
