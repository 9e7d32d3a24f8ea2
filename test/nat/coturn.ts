/** Debian's coturn on a host of the internet of tests: STUN and TURN, with credentials that expire. */
import { createHmac, randomBytes } from 'node:crypto';
import type { HostProcess } from './host-process.ts';
import type { Host } from './internet.ts';

const PORT = 3478;
const REALM = 'skein.test';
/** Where Debian's package has its files. */
const FOLDER = '/var/lib/turn';
const LIFETIME_S = 3_600;
/** As long as the longest file of tests (ms). */
const DEADLINE_MS = 300_000;

interface Credentials {
  readonly username: string;
  readonly password: string;
}

export interface Coturn {
  readonly process: HostProcess;
  readonly address: string;
  readonly port: number;
  /** Signs the credentials; a coordinator that is to hand out credentials must know it. */
  readonly secret: string;
  /** As WebRTC's configuration names them. */
  readonly urls: { readonly stun: string; readonly turn: string; readonly turnOverTcp: string };
}

/**
 * What coturn's "TURN REST API" takes: a name that says when it expires, and its signature.
 * @param lifetimeS negative for what has expired
 */
export function credentialsOf(secret: string, lifetimeS: number = LIFETIME_S): Credentials {
  const username = `${Math.floor(Date.now() / 1_000) + lifetimeS}:peer`;
  return { username, password: createHmac('sha1', secret).update(username).digest('base64') };
}

/** It keeps its files where nobody else sees them, and where they vanish with it. */
const START = `mount -t tmpfs coturn ${FOLDER} && exec turnserver "$@"`;

/** @param deadlineMs when it is killed */
export async function startCoturn(host: Host, deadlineMs: number = DEADLINE_MS): Promise<Coturn> {
  const secret = randomBytes(16).toString('hex');
  const { address } = host;
  const server = host.spawn(
    [
      ...(['sh', '-c', START, 'turnserver'] as const),
      ...['-n', '--verbose', '--log-file', 'stdout'], // No file of settings, none of a log.
      ...['--listening-ip', address, '--relay-ip', address, '--listening-port', `${PORT}`, '--realm', REALM],
      ...['--use-auth-secret', '--static-auth-secret', secret],
      ...['--no-tls', '--no-dtls', '--no-cli'],
      ...['--pidfile', `${FOLDER}/pid`, '--userdb', `${FOLDER}/users`],
    ],
    { deadlineMs },
  );
  await Promise.all([server.wrote(/UDP listener opened on/), server.wrote(/TCP listener opened on/)]);
  const where = `${address}:${PORT}`;
  const urls = {
    stun: `stun:${where}`,
    turn: `turn:${where}?transport=udp`,
    turnOverTcp: `turn:${where}?transport=tcp`,
  };
  return { process: server, address, port: PORT, secret, urls };
}
