/** Which errors of a collective cost a round, and which end the training. */
import { PeerLostError, QuorumError, type SkeinError, TimeoutError, WithdrawnError } from '../index.ts';

/**
 * The group goes on after these, and all members get them or may get them: the round is lost, and its steps are merged into
 * the next one. Anything else (this peer was evicted, the calls don't match, …) no later round can mend.
 */
export function isPassing(error: unknown): error is SkeinError {
  return (
    error instanceof TimeoutError ||
    error instanceof WithdrawnError ||
    error instanceof PeerLostError ||
    error instanceof QuorumError
  );
}
