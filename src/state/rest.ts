/**
 * A newcomer looks at all of its memory before it is a member. To touch each page for the first time may take a processor for seconds, and
 * where it shares a host with members that is theirs: so it rests as long as it works.
 */
import type { StatePort } from './port.ts';

/** Rests, in stretches of work. */
const RESTS = 1;

/** The longest (ms): it may have been stopped while it worked. */
const MAX_REST_MS = 1_000;

/** @returns what to call after each stretch: it resolves when the next may begin */
export function restfulTurns({ now, schedule }: Pick<StatePort, 'now' | 'schedule'>): () => Promise<void> {
  let resumedAt = now();
  return async () => {
    const restMs = Math.min(MAX_REST_MS, RESTS * (now() - resumedAt));
    await new Promise<void>((resolve) => void schedule(restMs, resolve));
    resumedAt = now();
  };
}
