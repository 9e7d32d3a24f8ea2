/** Where this process can be reached, and by whom: its listeners, and the key of the machine it runs on. */
import { randomBytes } from 'node:crypto';
import { readFile, readlink } from 'node:fs/promises';
import { hostname, networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ArgumentError } from '../errors.ts';
import { isLoopback } from '../transport/address.ts';
import { tcpTransport } from '../transport/tcp.ts';
import type { TlsAcceptor } from '../transport/tls.ts';
import { listenTls } from '../transport/tls-listener.ts';
import type { Address, Connection, Listener } from '../transport/transport.ts';
import { unixTransport } from '../transport/unix.ts';
import { encrypts, type Security } from './security.ts';

/** `memory` exists in simulations only. `tcp` stands for TLS, too: where it is used is no matter of choice. */
export type TransportKind = Exclude<Address['kind'], 'tls'>;

/** Who may come in at a listener, and who takes them. */
export interface Door {
  readonly security: Security;
  /** How those who come by TLS are known; null: TLS is not served. */
  readonly acceptor: TlsAcceptor | null;
  readonly onConnection: (connection: Connection) => void;
  /** Somebody was turned away; the reason names the remote end. */
  readonly onRefused: (reason: string) => void;
}

/** Peers with the same key see the same file system, and so each other's Unix-domain sockets. */
export async function hostKey(): Promise<string> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => hostname());
  const mounts = await readlink('/proc/self/ns/mnt').catch(() => '');
  return `${boot.trim()} ${mounts}`.trim();
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

/** @throws ArgumentError when TLS is wanted and nobody could be known by it */
async function listenForData(host: string, door: Door): Promise<Listener> {
  const { security, acceptor, onConnection, onRefused } = door;
  if (!encrypts(security, host)) return tcpTransport.listen({ kind: 'tcp', host, port: 0 }, onConnection);
  if (acceptor === null) throw new ArgumentError(`Nobody could be known by TLS on ${host}: give a \`token\`.`);
  return listenTls(
    { kind: 'tls', host, port: 0 },
    { acceptor, servesPlainLoopback: false, rate: null, onRefused },
    onConnection,
  );
}

/** Opens one listener per transport. */
export async function openListeners(kinds: readonly TransportKind[], host: string, door: Door): Promise<Listeners> {
  const opened: Listener[] = [];
  const close = async () => {
    await Promise.all(opened.map((listener) => listener.close()));
  };
  try {
    for (const kind of kinds) {
      if (kind === 'tcp') opened.push(await listenForData(host, door));
      else if (kind === 'unix') {
        const path = join(tmpdir(), `skein-${process.pid}-${randomBytes(6).toString('hex')}.sock`);
        opened.push(await unixTransport.listen({ kind, path }, door.onConnection));
      }
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { addresses: opened.map((listener) => listener.address), close };
}
