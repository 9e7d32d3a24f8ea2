/** Entry of the thread that writes snapshots. */
import { parentPort } from 'node:worker_threads';
import type { WriteReply, WriteRequest } from './disk.ts';
import { SnapshotFolder } from './folder.ts';

const port = parentPort!; // this file only runs as a worker
const folders = new Map<string, SnapshotFolder>();
/** One after the other. */
let last: Promise<void> = Promise.resolve();

async function write({ id, directory, options, keep, snapshot }: WriteRequest): Promise<WriteReply> {
  try {
    const folder = folders.get(directory) ?? (await SnapshotFolder.open(directory, options));
    folders.set(directory, folder);
    return { id, path: await folder.write(snapshot, keep) };
  } catch (error) {
    return { id, message: error instanceof Error ? error.message : String(error) };
  }
}

port.on('message', (request: WriteRequest) => {
  last = last.then(async () => port.postMessage(await write(request)));
});
