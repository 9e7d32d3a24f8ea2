/** Somebody between two ends of TCP connections, who passes bytes on as he likes. */
import { connect, createServer, type Socket } from 'node:net';
import type { Connection } from '../../src/transport/transport.ts';

const HOST = '127.0.0.1';

export type Speaker = 'dialler' | 'listener';

export interface Middle {
  readonly port: number;
  close(): Promise<void>;
}

interface Habits {
  /** What becomes of bytes that one end said. @default they stay as they are */
  readonly change?: (bytes: Buffer, from: Speaker) => Buffer;
  /** How late the listening end's words arrive (ms). @default 0 */
  readonly delayMs?: number;
  /** So many connections are closed at once. @default 0 */
  readonly closesFirst?: number;
}

/** Stands before a port of this machine. */
export async function standBefore(target: number, habits: Habits = {}): Promise<Middle> {
  const { change = (bytes) => bytes, delayMs = 0, closesFirst = 0 } = habits;
  const sockets = new Set<Socket>();
  let count = 0;
  const server = createServer({ allowHalfOpen: true }, (near) => {
    near.on('error', () => {});
    count += 1;
    if (count <= closesFirst) {
      near.destroy();
      return;
    }
    const far = connect({ host: HOST, port: target, allowHalfOpen: true });
    for (const [from, to, name] of [
      [near, far, 'dialler'],
      [far, near, 'listener'],
    ] as const) {
      sockets.add(from);
      const later = (act: () => void) => {
        if (name === 'listener' && delayMs > 0) setTimeout(act, delayMs);
        else act();
      };
      from.on('data', (bytes: Buffer) => later(() => to.write(change(bytes, name))));
      from.on('end', () => later(() => to.end()));
      from.on('error', () => {});
      from.on('close', () => later(() => to.destroy()));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('a TCP server has an address with a port');
  return {
    port: bound.port,
    close() {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => void server.close(() => resolve()));
    },
  };
}

/** Joins two connections: what comes on one goes out on the other. */
export function splice(one: Connection, two: Connection): void {
  for (const [from, to] of [
    [one, two],
    [two, one],
  ] as const) {
    from.handler = {
      onData: (bytes) => to.write(bytes.slice(), null, null),
      onEnd: () => to.end(),
      onClose: () => to.destroy(),
    };
    from.resume();
  }
}
