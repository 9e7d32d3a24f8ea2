/** Beginning with what a folder holds. */
import { ArgumentError } from '../errors.ts';
import type { SharedState } from '../state/memory.ts';
import { frozenOf, thaw } from './contents.ts';
import { readSnapshot } from './folder.ts';
import type { Resumed } from './keeper.ts';

/**
 * Puts the latest whole snapshot into a state, unless that has a higher revision. Each that is damaged is told of by a warning of the
 * process, and passed over.
 *
 * @returns null where the folder holds none
 * @throws SnapshotError where all are damaged; ArgumentError where the snapshot has other entries than the state
 */
export async function resume(directory: string, state: SharedState | undefined): Promise<Resumed | null> {
  if (state === undefined)
    throw new ArgumentError('`resumeFrom` puts a snapshot into the shared state: give that to join() as `state`.');
  const snapshot = await readSnapshot(directory, (text) => process.emitWarning(text, 'SkeinWarning'));
  if (snapshot === null) return null;
  const { revision, shared, own } = snapshot;
  if (revision >= state.revision) thaw(state, frozenOf(shared, revision), `The snapshot in ${directory}`);
  return { directory, revision, own };
}
