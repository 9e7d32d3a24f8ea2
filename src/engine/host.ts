/** Where this process can be reached, and by whom: its listeners, and the key of the machine it runs on. */
import { randomBytes } from 'node:crypto';
import { readFile, readlink } from 'node:fs/promises';
import { hostname, networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { tcpTransport } from '../transport/tcp.ts';
import type { Address, Connection, Listener } from '../transport/transport.ts';
import { unixTransport } from '../transport/unix.ts';

/** `memory` exists in simulations only. */
export type TransportKind = Address['kind'];

/** Peers with the same key see the same file system, and so each other's Unix-domain sockets. */
export async function hostKey(): Promise<string> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => hostname());
  const mounts = await readlink('/proc/self/ns/mnt').catch(() => '');
  return `${boot.trim()} ${mounts}`.trim();
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

/** Address to listen on for data: loopback when the coordinator is there too, else the first outward address. */
export function dataHost(coordinatorHost: string): string {
  if (isLoopback(coordinatorHost)) return coordinatorHost === 'localhost' ? '127.0.0.1' : coordinatorHost;
  const wanted = coordinatorHost.includes(':') ? 'IPv6' : 'IPv4';
  for (const addresses of Object.values(networkInterfaces())) {
    for (const one of addresses ?? []) {
      if (!one.internal && one.family === wanted && !one.address.startsWith('fe80')) return one.address;
    }
  }
  return coordinatorHost.includes(':') ? '::' : '0.0.0.0';
}

export interface Listeners {
  readonly addresses: readonly Address[];
  close(): Promise<void>;
}

/** Opens one listener per transport. */
export async function openListeners(
  kinds: readonly TransportKind[],
  host: string,
  onConnection: (connection: Connection) => void,
): Promise<Listeners> {
  const opened: Listener[] = [];
  const close = async () => {
    await Promise.all(opened.map((listener) => listener.close()));
  };
  try {
    for (const kind of kinds) {
      if (kind === 'tcp') opened.push(await tcpTransport.listen({ kind, host, port: 0 }, onConnection));
      else if (kind === 'unix') {
        const path = join(tmpdir(), `skein-${process.pid}-${randomBytes(6).toString('hex')}.sock`);
        opened.push(await unixTransport.listen({ kind, path }, onConnection));
      }
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { addresses: opened.map((listener) => listener.address), close };
}
