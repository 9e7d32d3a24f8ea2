/** How the peers of a run are reached from here. What looks is loaded when it is asked for, so that peers don't carry it. */
import { resolveSecurity } from './engine/resolve-security.ts';
import type { LinkStatus } from './engine/runtime.ts';
import { type JoinOptions, resolveJoin } from './options.ts';

/**
 * Comes to a run and dials its peers as `join()` does, but takes no part: nobody waits for it. Tells how each peer is reached
 * (`path`), or that it is not, and why better ways failed (`failures`). `skein doctor` shows it.
 *
 * @param address as for `join()`
 * @throws ArgumentError, ConnectError, UnauthorizedError, ProtocolError
 */
export async function diagnose(
  address?: string | readonly string[],
  options: JoinOptions = {},
): Promise<readonly LinkStatus[]> {
  const { runtime } = resolveJoin(address, options, process.env, resolveSecurity);
  const { Runtime } = await import('./engine/runtime.ts');
  const { systemPlatform } = await import('./engine/platform.ts');
  const release = runtime.transports.includes('webrtc') ? (await import('./engine/rtc-engine.ts')).useRtcHere() : null;
  try {
    return await Runtime.diagnose(runtime, systemPlatform);
  } finally {
    await release?.();
  }
}
