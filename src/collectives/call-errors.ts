/** With what a call ends that fails, in words: what happened, as far as this peer knows, and what its caller can do. */
import {
  ExcludedError,
  MismatchError,
  PeerLostError,
  QuorumError,
  type SkeinError,
  TimeoutError,
  WithdrawnError,
} from '../errors.ts';
import type { PeerId } from './call.ts';
import type { Verdict } from './context.ts';
import type { Operation } from './operation.ts';

export const CALL_AGAIN = 'Call it again in the present view';
export const EAGER_HINT =
  "With `consistency: 'eager'` it is not redone, as some members may have returned. Call it again, or use 'commit'.";
export const EXCLUDED_HINT =
  'the others had waited for this peer too long, and went on without it. Its tensor is as it was, and it is still a member: take over their state, and go on with the next call.';
export const FAIL_HINT = "It was not redone because the call asked for `recovery: 'fail'`.";
export const SHAPE_HINT =
  'Its tensors were laid out for the members there were before: lay them out for the present view and call again.';

function elapsedOf({ startedAt }: Operation, now: number): number {
  return Math.round(now - startedAt);
}

/** There were fewer members than the call wants. Every other member of its view finds the same, so none has to be told. */
export function quorumError(operation: Operation, now: number, remedy: string): SkeinError {
  const { title, call, epoch, members } = operation;
  const elapsed = elapsedOf(operation, now);
  const message = `${title} waited ${elapsed} ms for ${call.minWorldSize} members; there are ${members.length} in its view. ${remedy}, or lower \`minWorldSize\`.`;
  return new QuorumError(message, { op: title, epoch, elapsed, phase: 'quorum' });
}

export function timeoutError(operation: Operation, now: number): SkeinError {
  const { title, context, state } = operation;
  const elapsed = elapsedOf(operation, now);
  const message = `${title} ran out of time after ${elapsed} ms while waiting for ${operation.waitsFor()}. Check that every member makes this call, or raise its \`timeout\`.`;
  return new TimeoutError(message, { op: title, epoch: context?.epoch, elapsed, phase: state });
}

/** Members were lost, or the link between two (nobody is in `lost`). */
export function peerLostError(operation: Operation, lost: readonly PeerId[], now: number, hint: string): SkeinError {
  const { title, context } = operation;
  const who = lost.length > 0 ? `lost ${lost.join(', ')}` : 'lost a link';
  return new PeerLostError(`${title} ${who} before it was finished. ${hint}`, {
    op: title,
    peer: lost[0],
    epoch: context?.epoch,
    elapsed: elapsedOf(operation, now),
    phase: 'transfer',
  });
}

/** What the coordinator has decided. */
export function verdictError(operation: Operation, verdict: Verdict, now: number): SkeinError {
  const { title, context } = operation;
  const elapsed = elapsedOf(operation, now);
  const details = { op: title, peer: verdict.peerId, epoch: context?.epoch, elapsed, phase: 'open' };
  const message = `${title}: ${verdict.message}`;
  if (verdict.code === 'excluded') return new ExcludedError(message, details);
  if (verdict.code === 'lost') return new PeerLostError(`${message} ${EAGER_HINT}`, details);
  return verdict.code === 'mismatch' ? new MismatchError(message, details) : new WithdrawnError(message, details);
}
