/**
 * A store in etcd (3.4 and later), through the JSON gateway that each of its members serves: `fetch` is all that it takes.
 * Keys and values are base64 there, and 64-bit numbers strings; what is zero or false is left out.
 *
 * Where etcd asks for a password, the gateway gives a token for it, which ends after some minutes without use, when the password changes,
 * and with the member that gave it: a call that is refused for its sake is made again with a new one, once.
 *
 * A call that fails goes to another member next time. A member that is cut off from the others answers nothing, so each call has
 * a deadline.
 */
import * as v from 'valibot';
import { ArgumentError } from '../errors.ts';
import { type EtcdAccess, type Gateway, gatewayOf } from './etcd-access.ts';
import { type Change, type Entry, type Guard, type Lease, type Store, StoreError } from './store.ts';

export interface EtcdOptions {
  /** Stands before each key, so that several deployments can share one etcd. */
  readonly prefix: string;
  /** Milliseconds after which a call has failed. */
  readonly callMs: number;
  readonly access?: EtcdAccess;
}

const int64 = v.optional(
  v.pipe(
    v.union([v.string(), v.number()]),
    v.transform((value) => Number(value)),
    v.number(),
    v.integer(),
  ),
  0,
);
const header = v.object({ revision: int64 });
const pair = v.object({
  key: v.string(),
  value: v.optional(v.string(), ''),
  create_revision: int64,
  mod_revision: int64,
});
const rangeAnswer = v.object({ kvs: v.optional(v.array(pair), []) });
const txnAnswer = v.object({ header, succeeded: v.optional(v.boolean(), false) });
/** Ids have 64 bits: more than a number holds. */
const leaseId = v.union([v.string(), v.number()]);
const grantAnswer = v.object({ ID: leaseId, TTL: int64 });
const keepAliveAnswer = v.object({ result: v.object({ TTL: int64 }) });
const watchAnswer = v.object({
  result: v.object({
    canceled: v.optional(v.boolean(), false),
    compact_revision: int64,
    cancel_reason: v.optional(v.string(), ''),
    events: v.optional(v.array(v.unknown()), []),
  }),
});
const authenticateAnswer = v.object({ token: v.string() });

/** Longest answer, or part of a watch's, that is read (bytes). */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** Of etcd's errors: there is no such lease (gRPC's NOT_FOUND). */
const NOT_FOUND = 5;

/** The token is no good any more (gRPC's UNAUTHENTICATED); or users or roles have changed since it was given. */
const UNAUTHENTICATED = 16;
const OLD_TOKEN = /revision of auth store is old|user name is empty/;

function encode(text: string): string {
  return Buffer.from(text).toString('base64');
}

function decode(text: string): string {
  return Buffer.from(text, 'base64').toString();
}

/** The first key after all that begin like this, as etcd orders them. */
function endOf(prefix: string): string {
  const bytes = Buffer.from(prefix);
  bytes[bytes.length - 1]! += 1; // prefixes are ASCII, and not empty
  return bytes.toString('base64');
}

class EtcdRefusal extends StoreError {
  readonly status: number | undefined;

  constructor(message: string, status: number | undefined) {
    super(message);
    this.status = status;
  }
}

export class EtcdStore implements Store {
  readonly isShared = true;
  readonly #endpoints: readonly string[];
  readonly #options: EtcdOptions;
  readonly #gateway: Gateway;
  /** Index of the member that is asked. */
  #at = 0;
  /** For the user's password; null: none yet, or it is no good any more. */
  #token: Promise<string> | null = null;

  /**
   * @param endpoints URLs of etcd's members
   * @throws ArgumentError where what is given for access does not go together
   */
  constructor(endpoints: readonly string[], options: EtcdOptions) {
    this.#endpoints = endpoints;
    this.#options = options;
    this.#gateway = gatewayOf(options.access ?? {}, endpoints);
  }

  async get(key: string): Promise<Entry | null> {
    const { kvs } = await this.#call('kv/range', { key: this.#keyOf(key) }, rangeAnswer);
    return kvs[0] === undefined ? null : this.#entry(kvs[0]);
  }

  async list(prefix: string): Promise<readonly Entry[]> {
    const whole = `${this.#options.prefix}${prefix}`;
    const { kvs } = await this.#call('kv/range', { key: encode(whole), range_end: endOf(whole) }, rangeAnswer);
    return kvs.map((one) => this.#entry(one));
  }

  async commit(guards: readonly Guard[], changes: readonly Change[]): Promise<number | null> {
    const compare = guards.map((guard) => ({
      key: this.#keyOf(guard.key),
      result: 'EQUAL',
      ...('created' in guard
        ? { target: 'CREATE', create_revision: `${guard.created}` }
        : { target: 'MOD', mod_revision: `${guard.modified}` }),
    }));
    const success = changes.map((change) =>
      'put' in change
        ? {
            request_put: {
              key: this.#keyOf(change.put),
              value: encode(change.value),
              ...(change.lease === undefined ? {} : { lease: change.lease }),
            },
          }
        : { request_delete_range: { key: this.#keyOf(change.delete) } },
    );
    const answer = await this.#call('kv/txn', { compare, success }, txnAnswer);
    return answer.succeeded ? answer.header.revision : null;
  }

  async grant(ms: number): Promise<Lease> {
    const { ID, TTL } = await this.#call('lease/grant', { TTL: `${Math.ceil(ms / 1_000)}` }, grantAnswer);
    return { id: `${ID}`, ms: TTL * 1_000 };
  }

  async keepAlive(id: string): Promise<Lease | null> {
    const { result } = await this.#call('lease/keepalive', { ID: id }, keepAliveAnswer);
    return result.TTL <= 0 ? null : { id, ms: result.TTL * 1_000 };
  }

  async revoke(id: string): Promise<void> {
    try {
      await this.#call('lease/revoke', { ID: id }, v.unknown());
    } catch (error) {
      if (!(error instanceof EtcdRefusal && error.status === NOT_FOUND)) throw error;
    }
  }

  async changed(key: string, after: number, withinMs: number, signal: AbortSignal): Promise<void> {
    const create_request = { key: this.#keyOf(key), start_revision: `${after + 1}` };
    const deadline = AbortSignal.timeout(withinMs);
    const endpoint = this.#endpoint;
    try {
      const body = await this.#post('watch', { create_request }, AbortSignal.any([signal, deadline]));
      for await (const part of partsOf(body)) {
        const { canceled, compact_revision, cancel_reason, events } = v.parse(watchAnswer, part).result;
        // What was compacted has changed.
        if (events.length > 0 || compact_revision > 0) break;
        if (!canceled) continue;
        this.#token = null; // which may be why
        throw new Error(
          `it ended the watch (${cancel_reason || 'it gave no reason: perhaps the user may not read there'})`,
        );
      }
    } catch (error) {
      if (deadline.aborted || signal.aborted) return;
      throw this.#failure('watch', endpoint, error);
    }
  }

  async close(): Promise<void> {
    this.#gateway.close();
  }

  get #endpoint(): string {
    return this.#endpoints[this.#at]!; // it is one of them
  }

  #keyOf(key: string): string {
    return encode(`${this.#options.prefix}${key}`);
  }

  #entry({ key, value, create_revision, mod_revision }: v.InferOutput<typeof pair>): Entry {
    return {
      key: decode(key).slice(this.#options.prefix.length),
      value: decode(value),
      created: create_revision,
      modified: mod_revision,
    };
  }

  /** One request and the first answer, within the deadline; the member that failed is not asked next time. */
  async #call<T>(path: string, body: object, schema: v.GenericSchema<unknown, T>): Promise<T> {
    const endpoint = this.#endpoint;
    const deadline = AbortSignal.timeout(this.#options.callMs);
    try {
      return await firstOf(await this.#post(path, body, deadline), schema);
    } catch (error) {
      throw this.#failure(path, endpoint, error, deadline.aborted);
    }
  }

  /** As the user, if there is one. */
  async #post(path: string, body: object, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const { user, password } = this.#options.access ?? {};
    if (user === undefined || password === undefined) return this.#send(path, body, {}, signal);
    for (let isFirst = true; ; isFirst = false) {
      this.#token ??= this.#authenticate(user, password, signal);
      const token = this.#token;
      try {
        return await this.#send(path, body, { Authorization: await token }, signal);
      } catch (error) {
        const isOld =
          error instanceof EtcdRefusal && (error.status === UNAUTHENTICATED || OLD_TOKEN.test(error.message));
        if (this.#token === token) this.#token = isOld ? null : this.#token;
        if (!isOld || !isFirst) throw error;
      }
    }
  }

  async #authenticate(name: string, password: string, signal: AbortSignal): Promise<string> {
    try {
      const body = await this.#send('auth/authenticate', { name, password }, {}, signal);
      return (await firstOf(body, authenticateAnswer)).token;
    } catch (error) {
      this.#token = null;
      throw error;
    }
  }

  async #send(
    path: string,
    body: object,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    const answer = await this.#gateway.post(
      `${this.#endpoint}/v3/${path}`,
      { 'Content-Type': 'application/json', ...headers },
      JSON.stringify(body),
      signal,
    );
    if (answer.status === 200) return answer.body;
    let text = '';
    const decoder = new TextDecoder();
    for await (const bytes of answer.body) {
      text += decoder.decode(bytes, { stream: true });
      if (text.length > 500) break;
    }
    const code = /"code":\s*(\d+)/.exec(text)?.[1];
    throw new EtcdRefusal(`${answer.status} ${text.slice(0, 500)}`, code === undefined ? undefined : Number(code));
  }

  #failure(path: string, endpoint: string, error: unknown, isLate = false): StoreError {
    if (this.#endpoint === endpoint) this.#at = (this.#at + 1) % this.#endpoints.length;
    if (error instanceof EtcdRefusal && error.status === NOT_FOUND) return error;
    const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : '';
    const reason = isLate ? `no answer within ${this.#options.callMs} ms` : `${(error as Error).message}${cause}`;
    return new StoreError(`etcd at ${endpoint} failed at ${path} (${reason}).`, error);
  }
}

async function firstOf<T>(body: AsyncIterable<Uint8Array>, schema: v.GenericSchema<unknown, T>): Promise<T> {
  for await (const part of partsOf(body)) return v.parse(schema, part);
  throw new Error('it sent nothing');
}

/** An answer's JSON values, one a line, as they come; who stops reading closes the stream. */
async function* partsOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<unknown, void> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const bytes of body) {
    text += decoder.decode(bytes, { stream: true });
    if (text.length > MAX_ANSWER_BYTES) throw new Error('it sent too long an answer');
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      if (line.trim() !== '') yield JSON.parse(line);
    }
  }
  if (text.trim() !== '') yield JSON.parse(text);
}

/**
 * From `http://a:2379,http://b:2379`, perhaps with `?prefix=lab` at the end.
 *
 * @throws ArgumentError when it is something else
 */
export function parseEtcd(text: string): { readonly endpoints: readonly string[]; readonly prefix: string } {
  const [, list = '', prefix = 'skein'] = /^([^?]*)(?:\?prefix=([\w./-]+))?$/.exec(text) ?? [];
  const endpoints = list.split(',').map((one) => one.replace(/\/+$/, ''));
  const isEndpoint = (one: string) => /^https?:\/\/[^/\s?#@]+$/.test(one) && URL.canParse(one);
  if (!endpoints.every(isEndpoint)) {
    throw new ArgumentError(
      `${JSON.stringify(`etcd:${text}`)} names no etcd: write etcd:http://a:2379,http://b:2379, with ?prefix=… at the end where others use it too.`,
    );
  }
  return { endpoints, prefix: `${prefix}/` };
}
