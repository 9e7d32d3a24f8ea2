/** Notes of a run, which any peer writes and all see (`skein/notes`): configuration, remarks, metrics. An entry of its own, as few need it. */
import { type Group, TimeoutError } from '../index.ts';
import { Notes } from './notes.ts';

export type { NotePlace, NotesState, NoteValue } from '../notes-document.ts';
export type { NoteChange, Notes, OwnNotes } from './notes.ts';

const opened: WeakMap<Group, Promise<Notes>> = new WeakMap();

const TIMEOUT_MS = 30_000;

/**
 * Opens the notes of a group's run; resolves when what others have noted is here. Called again it gives the same notes.
 *
 * @param options `timeout`: milliseconds until the coordinator must have answered (default 30,000)
 * @throws TimeoutError when it has not; ClosedError when this peer has left
 * @example
 * const notes = await openNotes(group);
 * notes.set('lr', 3e-4);             // for all, and for those who come later
 * notes.own.set('loss', 1.87);       // this peer's; gone with it
 * notes.on('change', ({ key, peerId, value }) => console.log(peerId ?? 'all', key, value));
 */
export function openNotes(group: Group, options: { readonly timeout?: number } = {}): Promise<Notes> {
  let promise = opened.get(group);
  if (promise === undefined) {
    promise = open(group, options.timeout ?? TIMEOUT_MS);
    opened.set(group, promise);
    promise.catch(() => opened.delete(group));
  }
  return promise;
}

async function open(group: Group, timeoutMs: number): Promise<Notes> {
  const schedule = (delayMs: number, task: () => void) => {
    const timer = setTimeout(task, delayMs);
    return () => clearTimeout(timer);
  };
  const send = group.notesPort((message) => notes.onMessage(message));
  const notes = new Notes(group.peerId, { send, schedule });
  group.on('coordinator-lost', () => notes.onLost());
  group.on('coordinator-back', () => notes.onConnected());
  let cancel = () => {};
  const late = new Promise<never>((_, reject) => {
    cancel = schedule(timeoutMs, () => {
      const message = `The coordinator did not answer for the notes of this run within ${timeoutMs} ms. It may be away, or of an earlier release.`;
      reject(new TimeoutError(message, { phase: 'notes', elapsed: timeoutMs }));
    });
  });
  try {
    await Promise.race([notes.opened(), late]);
    return notes;
  } finally {
    cancel();
  }
}
