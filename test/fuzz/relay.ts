/** A relay between two ends of TCP connections that writes down what both say. */
import { connect, createServer, type Socket } from 'node:net';
import type { Address } from '../../src/transport/transport.ts';

export interface Recording {
  /** What the dialling end said, and what the listening end did, each as one stream. */
  readonly dialler: Uint8Array;
  readonly listener: Uint8Array;
}

interface Pair {
  readonly dialler: Buffer[];
  readonly listener: Buffer[];
}

function pass(from: Socket, to: Socket, into: Buffer[]): void {
  from.on('data', (bytes: Buffer) => {
    into.push(Buffer.from(bytes));
    to.write(bytes);
  });
  from.on('end', () => to.end());
  from.on('error', () => {});
  from.on('close', () => to.destroy());
}

export class Relay {
  readonly address: Extract<Address, { kind: 'tcp' }>;
  readonly #pairs: Pair[];
  readonly #close: () => Promise<void>;

  /** Listens on loopback, and passes everything on to `target`. */
  static open(target: Extract<Address, { kind: 'tcp' }>): Promise<Relay> {
    const pairs: Pair[] = [];
    const sockets = new Set<Socket>();
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
      const far = connect({ host: target.host, port: target.port, allowHalfOpen: true, noDelay: true });
      const pair: Pair = { dialler: [], listener: [] };
      pairs.push(pair);
      pass(near, far, pair.dialler);
      pass(far, near, pair.listener);
      for (const socket of [near, far]) {
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
      }
    });
    const close = () =>
      new Promise<void>((done) => {
        server.close(() => done());
        for (const socket of sockets) socket.destroy();
      });
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => {
        const bound = server.address();
        if (bound === null || typeof bound === 'string') throw new Error('a TCP server has an address with a port');
        resolve(new Relay({ kind: 'tcp', host: '127.0.0.1', port: bound.port }, pairs, close));
      });
    });
  }

  private constructor(address: Extract<Address, { kind: 'tcp' }>, pairs: Pair[], close: () => Promise<void>) {
    this.address = address;
    this.#pairs = pairs;
    this.#close = close;
  }

  recordings(): Recording[] {
    return this.#pairs.map(({ dialler, listener }) => ({
      dialler: new Uint8Array(Buffer.concat(dialler)),
      listener: new Uint8Array(Buffer.concat(listener)),
    }));
  }

  close(): Promise<void> {
    return this.#close();
  }
}
