/** How the peers of a run are from here: reached, and in their own words. What looks is loaded when it is asked for, so that peers don't carry it. */
import type { FlightInquiry, Flights } from './engine/flight-inquiry.ts';
import { resolveSecurity } from './engine/resolve-security.ts';
import type { LinkStatus } from './engine/runtime-data.ts';
import { ArgumentError } from './errors.ts';
import { type JoinOptions, resolveJoin } from './options.ts';
import { MAX_FLIGHT_CALLS } from './wire/limits.ts';

/** Between two answers (ms): longer than a coordinator waits for a peer that says nothing. */
const PATIENCE_MS = 3_000;

/** Calls that have ended of which each peer tells. */
const CALLS = 64;

/**
 * Comes to a run and dials its peers as `join()` does, but takes no part: nobody waits for it. Tells how each peer is reached
 * (`path`), or that it is not, and why better ways failed (`failures`). `skein doctor` shows it.
 *
 * @param address as for `join()`
 * @throws ArgumentError, ConnectError, UnauthorizedError, ProtocolError
 */
export function diagnose(
  address?: string | readonly string[],
  options: JoinOptions = {},
): Promise<readonly LinkStatus[]> {
  return visit(address, options, null);
}

/** What `examine` has found: how each peer is reached, and the flight records of all. */
export interface Examination extends Flights {
  readonly links: readonly LinkStatus[];
}

/**
 * As `diagnose`, and gathers the flight records of all peers, through the coordinator: their engines answer even where all training
 * threads hang.
 *
 * @param options `calls`: so many that have ended are told of by each peer, 1,000 at most (default 64), and as many as 512 KiB hold; all
 *   that are open come first
 * @throws ArgumentError, ConnectError, UnauthorizedError, ProtocolError
 */
export async function examine(
  address?: string | readonly string[],
  options: JoinOptions & { readonly calls?: number } = {},
): Promise<Examination> {
  const { calls = CALLS, ...rest } = options;
  if (!Number.isInteger(calls) || calls < 0 || calls > MAX_FLIGHT_CALLS)
    throw new ArgumentError(`\`calls\` must be a whole number from 0 to ${MAX_FLIGHT_CALLS}, not ${calls}.`);
  const { FlightInquiry } = await import('./engine/flight-inquiry.ts');
  const { systemPlatform } = await import('./engine/platform.ts');
  const inquiry = new FlightInquiry(calls, systemPlatform.clock, PATIENCE_MS);
  const links = await visit(address, rest, inquiry);
  return { links, ...inquiry.flights };
}

async function visit(
  address: string | readonly string[] | undefined,
  options: JoinOptions,
  inquiry: FlightInquiry | null,
): Promise<readonly LinkStatus[]> {
  const { runtime } = resolveJoin(address, options, process.env, resolveSecurity);
  const { Runtime } = await import('./engine/runtime.ts');
  const { systemPlatform } = await import('./engine/platform.ts');
  const release = runtime.transports.includes('webrtc') ? (await import('./engine/rtc-engine.ts')).useRtcHere() : null;
  try {
    return await Runtime.diagnose(runtime, systemPlatform, inquiry);
  } finally {
    await release?.();
  }
}
