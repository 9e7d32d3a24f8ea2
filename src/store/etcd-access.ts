/** How etcd's gateway is reached: in the clear or by TLS with certificates of one's own, and as which user. */
import { Agent, request } from 'node:https';
import { ArgumentError } from '../errors.ts';

/** What an etcd asks of those who reach it: a password, certificates. */
export interface EtcdAccess {
  /** A user of etcd, with a role that may read and write below the prefix. @default etcd asks for none */
  readonly user?: string;
  readonly password?: string;
  /** Authority of etcd's certificates: the text of a PEM file. @default those of the system */
  readonly ca?: string;
  /** Certificate that etcd asks its clients for, and its private key: the texts of PEM files. @default none */
  readonly cert?: string;
  readonly key?: string;
}

interface Answer {
  readonly status: number;
  readonly body: AsyncIterable<Uint8Array>;
}

export interface Gateway {
  post(url: string, headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal): Promise<Answer>;
  close(): void;
}

/** @throws ArgumentError where these don't go together */
export function gatewayOf(access: EtcdAccess, endpoints: readonly string[]): Gateway {
  const { user, password, ca, cert, key } = access;
  if ((user === undefined) !== (password === undefined))
    throw new ArgumentError('A user of etcd needs a password, and a password a user: give both, or none.');
  if ((cert === undefined) !== (key === undefined))
    throw new ArgumentError(
      'A certificate for etcd needs its private key, and a key its certificate: give both, or none.',
    );
  if (ca === undefined && cert === undefined) return plainGateway;
  const clear = endpoints.find((one) => !one.startsWith('https:'));
  if (clear !== undefined)
    throw new ArgumentError(
      `Certificates are given, and ${clear} is in the clear: write https:// in all of etcd's URLs.`,
    );
  return tlsGateway({ ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert, key: key! }) }); // both or none
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

const plainGateway: Gateway = {
  async post(url, headers, body, signal) {
    const response = await fetch(url, { method: 'POST', headers, body, signal });
    return { status: response.status, body: response.body ?? nothing() };
  },
  close() {},
};

/** Node's `fetch` takes no certificates. */
function tlsGateway(certificates: { readonly ca?: string; readonly cert?: string; readonly key?: string }): Gateway {
  const agent = new Agent({ ...certificates, keepAlive: true, minVersion: 'TLSv1.2' });
  return {
    post: (url, headers, body, signal) =>
      new Promise((done, fail) => {
        const asked = request(url, { method: 'POST', headers, agent, signal }, (response) =>
          done({ status: response.statusCode ?? 0, body: response }),
        );
        asked.on('error', fail);
        asked.end(body);
      }),
    close: () => agent.destroy(),
  };
}
