/** Flight records from files, as peers have written them. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ArgumentError } from '../errors.ts';
import { type FlightDump, parseFlight } from '../wire/flight.ts';

/** Bytes of one file: more than the longest record can have that a peer writes. */
const MAX_FILE_BYTES: number = 64 * 1024 * 1024;

function filesIn(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const names = readdirSync(path).filter((name) => name.endsWith('.json') && !name.startsWith('.'));
    return names.sort().map((name) => join(path, name));
  } catch (error) {
    throw new ArgumentError(`${path} can't be read: ${(error as Error).message}`);
  }
}

/**
 * Of each peer the newest record, and only those of the run that was written about last: a folder may hold those of earlier ones.
 *
 * @param paths files, and folders of files
 * @throws ArgumentError when one can't be read, or is no flight record
 */
export function readFlights(paths: readonly string[]): {
  readonly dumps: readonly FlightDump[];
  readonly run: string | null;
} {
  const newest = new Map<string, FlightDump>();
  for (const file of paths.flatMap(filesIn)) {
    if (statSync(file).size > MAX_FILE_BYTES) throw new ArgumentError(`${file} is too long to be a flight record.`);
    const dump = parseFlight(readFileSync(file, 'utf8'));
    if (typeof dump === 'string') throw new ArgumentError(`${file} can't be used: ${dump}`);
    const key = JSON.stringify([dump.run, dump.peerId]);
    const known = newest.get(key);
    if (known === undefined || known.takenAt < dump.takenAt) newest.set(key, dump);
  }
  const all = [...newest.values()].sort((left, right) => left.takenAt - right.takenAt);
  const run = all.at(-1)?.run ?? null;
  return { dumps: all.filter((dump) => dump.run === run), run };
}
