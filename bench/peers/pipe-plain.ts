/**
 * One end of a long pipe with plain Node sockets, and nothing else: the ceiling of what stripes can reach. Listens or dials, sends by all
 * connections as much as they take, and tells how much has come whenever it is asked.
 */
import { connect, createServer, type Socket } from 'node:net';

export interface PlainTask {
  readonly host: string;
  readonly port: number;
  /** Null: it listens. */
  readonly connections: number | null;
  readonly sends: boolean;
}

/** Bytes that have come until now, and when that is (s, on the machine's monotonic clock). */
export interface PlainCount {
  readonly at: number;
  readonly bytes: number;
}

const WRITE_BYTES = 256 * 1024;
const READ_BYTES = 64 * 1024;

const task = JSON.parse(process.argv[2] ?? '') as PlainTask; // written by bench/pipes.ts
const block = Buffer.alloc(WRITE_BYTES);
let bytes = 0;

function use(socket: Socket): void {
  socket.on('error', () => process.exit(1));
  if (!task.sends) return;
  const fill = (): void => {
    while (socket.write(block));
  };
  socket.on('drain', fill);
  fill();
}

function count(read: number): boolean {
  bytes += read;
  return true;
}

const { host, port, connections } = task;
if (connections === null) {
  createServer({ noDelay: true }, (socket) => {
    socket.on('data', (data) => count(data.length));
    use(socket);
  }).listen(port, host, () => process.send?.('listening'));
} else {
  for (let index = 0; index < connections; index++) {
    const onread = { buffer: Buffer.alloc(READ_BYTES), callback: count };
    const socket = connect({ host, port, noDelay: true, onread }, () => use(socket));
  }
}
process.on('message', () => process.send?.({ at: Number(process.hrtime.bigint()) / 1e9, bytes } satisfies PlainCount));
process.on('disconnect', () => process.exit(0));
