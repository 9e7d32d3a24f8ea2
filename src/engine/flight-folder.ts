/** A folder of flight records. Who creates or touches the file `request` in it asks all peers of this machine that use it for theirs. */
import { type FSWatcher, mkdirSync, watch } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ArgumentError } from '../errors.ts';
import type { FlightFolder } from './flight-files.ts';

const REQUEST = 'request';

/**
 * @param onRequest somebody touched the file `request`: the way that is left where neither the training thread nor the coordinator answers
 * @throws ArgumentError when there can be no such folder
 */
export function openFlightFolder(path: string, onRequest: () => void): FlightFolder {
  let watcher: FSWatcher;
  try {
    mkdirSync(path, { recursive: true });
    watcher = watch(path, { persistent: false }, (_, name) => {
      if (name === REQUEST) onRequest();
    });
  } catch (error) {
    throw new ArgumentError(
      `Flight records can't be written to ${path}: ${(error as Error).message}. Name another folder in \`flight\` or SKEIN_FLIGHT.`,
    );
  }
  // The folder was removed: files are still tried.
  watcher.on('error', () => {});
  return {
    async write(name, text) {
      const unfinished = join(path, `.${name}.unfinished`);
      try {
        await writeFile(unfinished, text);
        await rename(unfinished, join(path, name));
      } catch (error) {
        process.emitWarning(`The flight record could not be written: ${(error as Error).message}`, 'SkeinWarning');
      }
    },
    close: () => watcher.close(),
  };
}
