/** STUN and TURN servers as the coordinator's user configures them, and as its peers are told of them. */
import { createHmac } from 'node:crypto';
import { ArgumentError } from '../errors.ts';
import type { IceServers } from '../wire/coordinator-messages.ts';
import { MAX_ICE_SERVERS } from '../wire/limits.ts';

/** A STUN or TURN server. */
export interface IceServerOptions {
  /** `stun:host:port`, `turn:host:port` or `turn:host:port?transport=tcp` (RFC 7064, RFC 7065). */
  readonly url: string;
  /** The TURN server's shared secret (coturn's `static-auth-secret`): each peer gets credentials that expire. */
  readonly secret?: string;
  /** Credentials that never change, where the server has no such secret. */
  readonly username?: string;
  readonly credential?: string;
}

/** How long credentials are good (ms). Sessions that were begun with them go on. */
const VALID_MS: number = 24 * 60 * 60 * 1_000;

const URL_PATTERN = /^(stun|turns?):[^\s:@?]+(:\d{1,5})?(\?transport=(udp|tcp))?$/;

/** @throws ArgumentError */
export function checkIceServers(servers: readonly IceServerOptions[]): void {
  if (servers.length > MAX_ICE_SERVERS)
    throw new ArgumentError(`There may be ${MAX_ICE_SERVERS} ICE servers, not ${servers.length}.`);
  for (const { url } of servers) {
    if (typeof url !== 'string' || !URL_PATTERN.test(url))
      throw new ArgumentError(
        `An ICE server has a url like stun:host:3478 or turn:host:3478, not ${JSON.stringify(url)}.`,
      );
  }
}

/** Credentials by shared secret as in J. Uberti, "A REST API For Access To TURN Services": a time, and its HMAC-SHA-1. */
export function iceServersFor(servers: readonly IceServerOptions[], peerId: string, nowMs: number): IceServers {
  return {
    validMs: VALID_MS,
    servers: servers.map(({ url, secret, username, credential }) => {
      if (secret !== undefined) {
        const name = `${Math.floor((nowMs + VALID_MS) / 1_000)}:${peerId}`;
        return { url, username: name, credential: createHmac('sha1', secret).update(name).digest('base64') };
      }
      return {
        url,
        ...(username === undefined ? {} : { username }),
        ...(credential === undefined ? {} : { credential }),
      };
    }),
  };
}
