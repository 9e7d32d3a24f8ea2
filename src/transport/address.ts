/** Coordinator addresses as users write them: `tcp://host:port`, IPv6 in brackets, or the URL of a WebSocket. */
import { ArgumentError } from '../errors.ts';
import type { Address } from './transport.ts';

export const DEFAULT_PORT = 7400;

const PATTERN = /^(?:tcp:\/\/)?(?:\[([0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|([^:/\s[\]]+))(?::(\d{1,5}))?$/;

/** @throws ArgumentError when it is no address */
export function parseTcpAddress(text: string): Extract<Address, { kind: 'tcp' }> {
  const match = PATTERN.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? DEFAULT_PORT : Number(match[3]);
  if (host === undefined || port < 1 || port > 65_535) {
    throw new ArgumentError(
      `${JSON.stringify(text)} is not a coordinator's address: write tcp://host:port, for instance tcp://127.0.0.1:7400.`,
    );
  }
  return { kind: 'tcp', host, port };
}

/** @throws ArgumentError when it is no address */
export function parseCoordinatorAddress(text: string): Address {
  if (!/^wss?:/.test(text)) return parseTcpAddress(text);
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || url.hash !== '' || url.username !== '' || url.password !== '')
    throw new ArgumentError(
      `${JSON.stringify(text)} is not a coordinator's address: write ws://host:port, or wss://host.`,
    );
  return { kind: 'ws', url: url.href };
}

const LOOPBACK_IPV4 = /^127(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}$/;

/** A socket that listens for IPv6 tells IPv4 addresses with a prefix. */
function unmapped(host: string): string {
  return host.startsWith('::ffff:') ? host.slice('::ffff:'.length) : host;
}

/** Whether what goes to this host stays on this machine. A name counts as another machine, except `localhost`. */
export function isLoopback(host: string): boolean {
  const plain = unmapped(host);
  return plain === 'localhost' || plain === '::1' || LOOPBACK_IPV4.test(plain);
}

/**
 * What counts as one origin of connections: an IPv4 address; of IPv6 the 64 bits of the network, as a machine may have all addresses
 * in it. null for this machine itself, which is not counted.
 */
export function originOf(host: string): string | null {
  if (isLoopback(host)) return null;
  const plain = unmapped(host);
  if (!plain.includes(':')) return plain;
  const [left = '', right] = plain.split('%')[0]!.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [before, after] = [groups(left), groups(right ?? '')];
  const zeros = right === undefined ? [] : new Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  return `${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}

/**
 * Where a coordinator that listens on loopback can also be reached, by processes of the same network namespace: control
 * messages take fewer steps through the kernel there than through TCP. null where there is no such place.
 */
export function shortcutOf(address: Address): Address | null {
  if (process.platform !== 'linux' || (address.kind !== 'tcp' && address.kind !== 'tls')) return null;
  if (address.host !== '127.0.0.1' && address.host !== '::1') return null;
  return { kind: 'unix', path: `\0skein coordinator ${address.host} ${address.port}` };
}

/** Whether it speaks TLS is no part of an address that users see: it follows from where it is. */
export function formatTcpAddress(address: Address): string {
  if (address.kind !== 'tcp' && address.kind !== 'tls')
    throw new ArgumentError(`A coordinator listens on TCP, not on ${address.kind}.`);
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `tcp://${host}:${address.port}`;
}
