/**
 * Tokens. The coordinator's own is a secret that lets anybody in for good. From it, *passes* are made: for one role, perhaps one
 * run, until a certain time, perhaps once. A pass says in the open what it is for (its claims), and holds a key that only who
 * knows the secret can make from them:
 *
 *     skein1.<claims>.<key>        key = HMAC-SHA-256(secret, claims)
 *
 * The key is never sent: a peer tells the claims and proves that it knows the key, as with the secret itself.
 */
import { createHmac, randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { ArgumentError } from '../errors.ts';
import { MAX_CLAIMS_LENGTH } from '../wire/limits.ts';
import { PASS_PREFIX } from './token-key.ts';

const ROLES = ['peer', 'observer', 'admin'] as const;

/** `peer`: takes part in runs. `observer`: sees what goes on. `admin`: also changes it. */
export type Role = (typeof ROLES)[number];

const claimsSchema = v.strictObject({
  id: v.pipe(v.string(), v.minLength(8), v.maxLength(64)),
  role: v.picklist(ROLES),
  /** Null for any. */
  run: v.nullable(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
  /** Seconds since 1970. */
  expires: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER)),
  once: v.boolean(),
});

export type Claims = v.InferOutput<typeof claimsSchema>;

/** What a pass lets its bearer do. */
export interface PassOptions {
  /** @default 'peer' */
  readonly role?: Role;
  /** The only run that it is for. @default any */
  readonly run?: string;
  /** Milliseconds for which it is good. @default 3600000, an hour */
  readonly validMs?: number;
  /** One peer can use it, which may come back with it after a lost connection. @default false */
  readonly once?: boolean;
}

const DEFAULT_VALID_MS = 3_600_000;

/**
 * Makes a pass from the coordinator's token: a token for one role, run, time or peer, which `join()` takes as any other.
 *
 * @param secret the token that the coordinator was started with
 * @throws ArgumentError
 */
export function makePass(secret: string, options: PassOptions = {}, nowMs: number = Date.now()): string {
  if (secret === '')
    throw new ArgumentError("A pass is made from the coordinator's token: give one that is not empty.");
  const { role = 'peer', run = null, validMs = DEFAULT_VALID_MS, once = false } = options;
  const expires = Math.floor((nowMs + validMs) / 1_000);
  const wanted = { id: randomBytes(12).toString('base64url'), role, run, expires, once };
  const checked = v.safeParse(claimsSchema, wanted);
  if (!checked.success) throw new ArgumentError(`A pass can't be made: ${checked.issues[0].message}.`);
  const claims = Buffer.from(JSON.stringify(checked.output)).toString('base64url');
  if (claims.length > MAX_CLAIMS_LENGTH)
    throw new ArgumentError('A pass for a run of so long a name is too long: give the run a shorter one.');
  return `${PASS_PREFIX}.${claims}.${keyOf(secret, claims).toString('base64url')}`;
}

/** The same key, for who knows the secret. */
export function keyOfClaims(secret: string, claims: string): Uint8Array | string {
  return claims === '' ? secret : new Uint8Array(keyOf(secret, claims));
}

function keyOf(secret: string, claims: string): Buffer {
  return createHmac('sha256', secret).update(claims).digest();
}

/** What the claims of a pass say; null when they say nothing. */
export function readClaims(claims: string): Claims | null {
  let value: unknown;
  try {
    value = claims.length <= MAX_CLAIMS_LENGTH ? JSON.parse(Buffer.from(claims, 'base64url').toString()) : null;
  } catch {
    value = null;
  }
  const parsed = v.safeParse(claimsSchema, value);
  return parsed.success ? parsed.output : null;
}

/** A pass that is good for one peer, and was used. */
export interface UsedPass {
  readonly id: string;
  /** The peer that came by it. */
  readonly by: string;
  /** Seconds since 1970. */
  readonly expires: number;
}

/** Passes for one peer that a coordinator remembers to have been used. */
export const MAX_USED_PASSES = 16_384;

/** Expired ones that go with one that is used. */
const MAX_FORGOTTEN = 64;

/** What is to be stored before the peer is let in. */
export interface PassUse {
  readonly pass: UsedPass;
  /** Passes that have expired: their ids. */
  readonly expired: readonly string[];
}

/** Passes that are good once, and who has used them. */
export class UsedPasses {
  /** By id. */
  readonly #used: Map<string, UsedPass> = new Map();
  /** Forgotten here, and still in the store. */
  #expired: string[] = [];

  constructor(used: Iterable<UsedPass>) {
    for (const one of used) this.#used.set(one.id, one);
  }

  /**
   * Why a pass does not let its bearer take part in a run, or null.
   *
   * @param returning the peer that it says it is, when it comes back
   */
  refusal(claims: Claims, run: string, returning: string | null, nowMs: number): string | null {
    if (claims.expires * 1_000 <= nowMs)
      return `This pass was good until ${new Date(claims.expires * 1_000).toISOString()}: ask for a new one.`;
    if (claims.role !== 'peer') return `This pass is for the role ${claims.role}: a peer needs one for the role peer.`;
    if (claims.run !== null && claims.run !== run) return `This pass is for the run ${claims.run}, not for ${run}.`;
    const used = this.#used.get(claims.id);
    if (claims.once && used !== undefined && used.by !== returning)
      return 'This pass is good for one peer, and was used: ask for a new one.';
    // To forget one of them would make it good again.
    if (claims.once && used === undefined && this.#countAt(nowMs) >= MAX_USED_PASSES)
      return `This coordinator can remember no more than ${MAX_USED_PASSES} passes that are good for one peer: ask for one that is good for many, or come again when some have expired.`;
    return null;
  }

  /** A peer is let in by a pass; null when there is nothing new to remember. */
  use(claims: Claims, peerId: string, nowMs: number): PassUse | null {
    if (!claims.once || this.#used.get(claims.id)?.by === peerId) return null;
    this.#forgetExpired(nowMs);
    const pass = { id: claims.id, by: peerId, expires: claims.expires };
    this.#used.set(claims.id, pass);
    return { pass, expired: this.#expired.splice(0, MAX_FORGOTTEN) };
  }

  /** How many have not expired. */
  #countAt(nowMs: number): number {
    if (this.#used.size >= MAX_USED_PASSES) this.#forgetExpired(nowMs);
    return this.#used.size;
  }

  #forgetExpired(nowMs: number): void {
    for (const [id, { expires }] of this.#used) {
      if (expires * 1_000 > nowMs) continue;
      this.#used.delete(id);
      this.#expired.push(id);
    }
  }
}
