/**
 * TLS 1.3 over TCP. The two ends know one another by a pre-shared key, or by certificates of one authority. A pre-shared key is
 * used together with a fresh Diffie-Hellman exchange, so what was recorded stays secret when the key becomes known.
 */
import { constants } from 'node:crypto';
import { isIP } from 'node:net';
import { type ConnectionOptions, createSecureContext, type TlsOptions } from 'node:tls';
import { ArgumentError, ConnectError, type SkeinError, UnauthorizedError } from '../errors.ts';
import { HANDSHAKE_TIMEOUT_MS } from '../wire/limits.ts';
import type { Psk } from './psk.ts';
import { dialSocket } from './socket-connection.ts';
import { nameOfTcp } from './tcp.ts';
import type { Address, Connection, DialOptions } from './transport.ts';

/** PEM. */
export interface Certificates {
  readonly cert: string | Uint8Array;
  readonly key: string | Uint8Array;
  /** The authority, one certificate or several, whose certificates are accepted from the other end: no other is. */
  readonly ca: string | Uint8Array;
}

/** PEM: what a server shows to those who show nothing but what they know, as browsers do. */
export type ServerCertificate = Pick<Certificates, 'cert' | 'key'>;

/**
 * What the dialling end shows, and asks of the other. `checksHost`: the other's certificate must be made out for the host that
 * is dialled, and not only by the authority.
 */
export type TlsDialer = { readonly psk: Psk } | { readonly certificates: Certificates; readonly checksHost: boolean };

/** How the accepting end knows who dials. `keyOf`: the key that goes with an identity, null for a stranger's. */
export type TlsAcceptor =
  | { readonly keyOf: (identity: string) => Uint8Array | null }
  | { readonly certificates: Certificates };

export type TlsAddress = Extract<Address, { kind: 'tls' }>;

/** Of the suites of TLS 1.3 the one that OpenSSL uses with pre-shared keys; both ends are Skein, so there is no other to agree on. */
const SUITE: Pick<ConnectionOptions, 'minVersion' | 'ciphers'> = {
  minVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256',
};

/** @throws ArgumentError when TLS can't use them */
export function checkCertificates(certificates: Certificates): void {
  try {
    createSecureContext(contextOf(certificates));
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new ArgumentError(
      `\`cert\`, \`key\` and \`ca\` can't be used for TLS (${text}): give the texts of PEM files, and the key that belongs to the certificate.`,
      { cause },
    );
  }
}

/** As a Buffer again, which it may have been before it crossed to another thread. */
function pem(text: string | Uint8Array): string | Buffer {
  return typeof text === 'string' ? text : Buffer.from(text);
}

type ContextSettings = Pick<ConnectionOptions, 'minVersion' | 'ciphers' | 'cert' | 'key' | 'ca'>;

function contextOf({ cert, key, ca }: Certificates): ContextSettings {
  return { ...SUITE, cert: pem(cert), key: pem(key), ca: pem(ca) };
}

// --- dialling --------------------------------------------------------------------------------------------------------

/** No certificate of anybody is accepted in place of the key. */
function refuseCertificates(): Error {
  return new Error('a certificate came in place of the pre-shared key');
}

function dialSettings(dialer: TlsDialer, host: string): ConnectionOptions {
  if ('psk' in dialer) {
    const { identity, key } = dialer.psk;
    return {
      ...SUITE,
      ca: [],
      rejectUnauthorized: true,
      checkServerIdentity: refuseCertificates,
      pskCallback: () => ({ identity, psk: key }),
    };
  }
  return {
    ...contextOf(dialer.certificates),
    rejectUnauthorized: true,
    // Only names can be asked for, and only where it matters which certificate comes.
    servername: dialer.checksHost && isIP(host) === 0 ? host : '',
    ...(dialer.checksHost ? {} : { checkServerIdentity: () => undefined }),
  };
}

/** OpenSSL's own word for it, where there is one: its messages are for its authors. */
function reasonOf(error: Error): string {
  return 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message;
}

/** What an error of the handshake means, for somebody who can do something about it. */
export function explainDial(byKey: boolean, name: string, error: Error): SkeinError {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const context = { cause: error, phase: 'dial' };
  if (code.includes('_ALERT_')) {
    const what = byKey
      ? 'the keys differ: check `token` (or SKEIN_TOKEN) on both sides, and whether the other side wants certificates'
      : 'it does not accept this certificate, or has none itself: give both sides certificates of one `ca`';
    return new UnauthorizedError(`${name} refused the TLS handshake (${reasonOf(error)}); ${what}.`, context);
  }
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER') {
    return new ConnectError(`${name} does not speak TLS: is it a Skein port, and encrypted?`, context);
  }
  if (code.startsWith('ERR_SSL_') || /^E[A-Z]+$/.test(code)) {
    return new ConnectError(`The TLS handshake with ${name} did not come to its end (${reasonOf(error)}).`, {
      ...context,
      phase: 'handshake',
    });
  }
  const what = byKey
    ? 'it shows a certificate: give this side `cert`, `key` and `ca`, too'
    : "its certificate can't be trusted here: check `ca`, and that the certificate is made out for this host";
  return new UnauthorizedError(`The TLS handshake with ${name} failed (${reasonOf(error)}); ${what}.`, context);
}

/** @throws ConnectError when nobody answers, UnauthorizedError when one of the two does not accept the other */
export function dialTls(address: TlsAddress, options: DialOptions, dialer: TlsDialer): Promise<Connection> {
  const { host, port } = address;
  const name = nameOfTcp('tls', host, port);
  return dialSocket({ host, port }, name, options, {
    settings: dialSettings(dialer, host),
    explain: (error) => explainDial('psk' in dialer, name, error),
  });
}

/**
 * What a WebSocket's dialler asks of a server with TLS of its own: a certificate of the given authority, made out for the host.
 * It is not asked for one itself.
 */
export function webSettings({ ca }: Certificates): ConnectionOptions {
  return { ...SUITE, ca: pem(ca), rejectUnauthorized: true };
}

// --- listening (tls-listener.ts, http-entrance.ts) -------------------------------------------------------------------

/** No sessions to resume: a peer whose key was withdrawn must not come back by a ticket. */
const NO_TICKETS: TlsOptions = { secureOptions: constants.SSL_OP_NO_TICKET };

/** Of a port that asks for no certificate: who comes shows otherwise who it is. */
export function serverSettings({ cert, key }: ServerCertificate): TlsOptions {
  return { ...NO_TICKETS, ...SUITE, cert: pem(cert), key: pem(key), handshakeTimeout: HANDSHAKE_TIMEOUT_MS };
}

export function acceptSettings(acceptor: TlsAcceptor): TlsOptions {
  if ('keyOf' in acceptor) {
    return { ...NO_TICKETS, ...SUITE, pskCallback: (_socket, identity) => acceptor.keyOf(identity) };
  }
  // Who has no good certificate is let through the handshake, to be refused with a reason.
  return { ...NO_TICKETS, ...contextOf(acceptor.certificates), requestCert: true, rejectUnauthorized: false };
}

/** Why somebody did not get through the handshake. */
export function explainAccept(acceptor: TlsAcceptor, error: Error): string {
  if ('keyOf' in acceptor) {
    return `it does not know the key of this run, or of a peer that was introduced here (${reasonOf(error)})`;
  }
  return `the TLS handshake with it failed (${reasonOf(error)})`;
}
