/** A peer's flight record as it is sent: within its limit. */
import type { FlightDump } from '../wire/flight.ts';
import { MAX_FLIGHT_BYTES } from '../wire/limits.ts';

/** As JSON, without the first half of its calls, and again, as long as it is too long. */
export function encodeFlight(dump: FlightDump): Uint8Array {
  for (let left = dump.calls.length; ; left >>= 1) {
    const shortened = left === 0 ? { calls: [], next: [] } : { calls: dump.calls.slice(-left) };
    const bytes = new TextEncoder().encode(JSON.stringify({ ...dump, ...shortened }));
    if (bytes.length <= MAX_FLIGHT_BYTES || left === 0) return bytes;
  }
}
