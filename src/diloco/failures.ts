/** Which errors of a collective cost a round, and which end the training. */
import { MismatchError, PeerLostError, QuorumError, type SkeinError, TimeoutError, WithdrawnError } from '../index.ts';

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

/** So many failures of its own a peer takes, in what all must agree on, before the user gets the last. */
export const ATTEMPTS = 3;

/**
 * Makes `attempt` until it succeeds. For what begins with a census: whoever saw it fail meets those who went on with its next
 * census, under the same tag, so that both get a mismatch at once and begin again together.
 *
 * @throws the error of the last attempt
 */
export async function insist<T>(attempt: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; ) {
    try {
      return await attempt();
    } catch (error) {
      // What others withdrew from while this peer was on its way is behind it at once: their patience, not its own.
      if (!(error instanceof WithdrawnError)) failures += 1;
      if (!(isPassing(error) || error instanceof MismatchError) || failures === ATTEMPTS) throw error;
    }
  }
}
