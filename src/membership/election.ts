/**
 * One candidate for the leadership of the coordinators that share a store, as a machine: events in, effects out.
 *
 *     resting ─look─▶ looking ──nobody leads──▶ granting ─▶ campaigning ──▶ leading ──lease may have ended──▶ resting
 *        ▲               │  somebody does                        │ beaten
 *        └─ it is gone ─ following ◀─────────────────────────────┘
 *
 * Who leads holds a key that is bound to a lease. **A lease is not a lock**: the store counts its time from when a renewal reaches
 * it, so a candidate counts from before it sent one, by its own monotonic clock, and stops a margin sooner. Between a look at the
 * clock and what is done then the process may be stopped for any time; so all that it writes is guarded by the key's create
 * revision, and what it says bears a term that its successor's is above.
 */
import { Lifecycle } from '../lifecycle.ts';

/** What the leader's key says. */
export interface LeaderKey {
  /** Revision in which the key came to be. */
  readonly created: number;
  /** Of the candidate that leads. */
  readonly id: string;
  /** Where peers find it. */
  readonly address: string;
}

export type ElectionEvent =
  | { readonly type: 'tick' }
  /** Who leads, as the store says; null: nobody. */
  | { readonly type: 'seen'; readonly leader: LeaderKey | null }
  /** The leader's key has changed, or was looked at for long enough. */
  | { readonly type: 'changed' }
  /** `askedAt`: when it was asked for. `ms`: for how long it was granted. */
  | { readonly type: 'granted'; readonly lease: string; readonly askedAt: number; readonly ms: number }
  /** What came of the attempt to take the key with a lease: its create revision, or null where somebody else has it. */
  | { readonly type: 'campaigned'; readonly lease: string; readonly created: number | null }
  | { readonly type: 'renewed'; readonly lease: string; readonly askedAt: number; readonly ms: number }
  /** A lease has ended, or its key is somebody else's. */
  | { readonly type: 'lapsed'; readonly lease: string }
  /** The store refused a write that was guarded by the key. */
  | { readonly type: 'refused' }
  /** The store did not answer. */
  | { readonly type: 'failed'; readonly asked: ElectionEffect['type']; readonly reason: string }
  /** It will not lead any more. */
  | { readonly type: 'resign' };

export type ElectionEffect =
  | { readonly type: 'look' }
  /** Wait until the leader's key changes. */
  | { readonly type: 'follow'; readonly leader: LeaderKey }
  | { readonly type: 'grant' }
  | { readonly type: 'campaign'; readonly lease: string }
  | { readonly type: 'renew'; readonly lease: string }
  /** Not needed any more; it would end by itself. */
  | { readonly type: 'revoke'; readonly lease: string }
  | { readonly type: 'lead'; readonly created: number }
  /** From now on it may say nothing. */
  | { readonly type: 'yield'; readonly reason: string };

type ElectionState = 'resting' | 'looking' | 'following' | 'granting' | 'campaigning' | 'leading';

const ELECTION = new Lifecycle<ElectionState>('election', {
  resting: ['looking'],
  looking: ['resting', 'following', 'granting'],
  following: ['looking'],
  granting: ['resting', 'campaigning'],
  campaigning: ['resting', 'leading', 'looking'],
  leading: ['resting'],
});

/** Of a lease: it is renewed so often, and given up so long before it can end. */
const RENEWALS = 4;
const MARGIN = 0.1;

/** Between attempts at a store that did not answer: so many of a lease. */
const RETRIES = 20;

interface HeldLease {
  readonly id: string;
  readonly ms: number;
  /** By this candidate's clock it can't have ended before. */
  readonly until: number;
}

export class Election {
  readonly #leaseMs: number;
  #state: ElectionState = 'resting';
  #lease: HeldLease | null = null;
  #leader: LeaderKey | null = null;
  /** Nothing is begun before. */
  #notBefore = 0;
  #renewAt = 0;
  #isRenewing = false;
  /** It begins nothing any more. */
  #hasResigned = false;
  #effects: ElectionEffect[] = [];

  constructor(leaseMs: number) {
    this.#leaseMs = leaseMs;
  }

  /** The other candidate that leads, as far as known. */
  get leader(): LeaderKey | null {
    return this.#leader;
  }

  /** Whether what it says now still counts: to be asked before anything is said. */
  mayLead(now: number): boolean {
    return this.#state === 'leading' && this.#lease !== null && now < safeUntil(this.#lease);
  }

  step(event: ElectionEvent, now: number): readonly ElectionEffect[] {
    this.#effects = [];
    if (this.#hasResigned && event.type !== 'granted') return this.#effects;
    switch (event.type) {
      case 'tick':
        this.#tick(now);
        break;
      case 'seen':
        this.#onSeen(event.leader);
        break;
      case 'changed':
        if (this.#state === 'following') this.#look();
        break;
      case 'granted':
        this.#onGranted(event);
        break;
      case 'campaigned':
        this.#onCampaigned(event, now);
        break;
      case 'renewed':
        this.#onRenewed(event, now);
        break;
      case 'lapsed':
        if (event.lease === this.#lease?.id) this.#yield('its lease has ended', now);
        break;
      case 'refused':
        if (this.#state === 'leading') this.#yield('the store refused what it wrote: another one leads', now);
        break;
      case 'failed':
        this.#onFailed(event.asked, now);
        break;
      case 'resign':
        this.#resign(now);
        break;
      default:
        event satisfies never;
    }
    return this.#effects;
  }

  #tick(now: number): void {
    if (this.#state === 'resting' && now >= this.#notBefore) this.#look();
    if (this.#state !== 'leading' || this.#lease === null) return;
    if (!this.mayLead(now)) this.#yield('it could not renew its lease in time', now);
    else if (!this.#isRenewing && now >= this.#renewAt) {
      this.#isRenewing = true;
      this.#effects.push({ type: 'renew', lease: this.#lease.id });
    }
  }

  #look(): void {
    this.#go('looking');
    this.#effects.push({ type: 'look' });
  }

  #onSeen(leader: LeaderKey | null): void {
    if (this.#state !== 'looking') return;
    if (leader !== null) this.#follow(leader);
    else {
      this.#leader = null;
      this.#go('granting');
      this.#effects.push({ type: 'grant' });
    }
  }

  #follow(leader: LeaderKey): void {
    this.#go('following');
    this.#leader = leader;
    this.#effects.push({ type: 'follow', leader });
  }

  #onGranted({ lease, askedAt, ms }: Extract<ElectionEvent, { type: 'granted' }>): void {
    if (this.#state !== 'granting' || this.#hasResigned) {
      this.#effects.push({ type: 'revoke', lease }); // it came too late
      return;
    }
    this.#go('campaigning');
    this.#lease = { id: lease, ms, until: askedAt + ms };
    this.#effects.push({ type: 'campaign', lease });
  }

  #onCampaigned({ lease, created }: Extract<ElectionEvent, { type: 'campaigned' }>, now: number): void {
    if (this.#state !== 'campaigning' || lease !== this.#lease?.id) return;
    if (created === null) {
      this.#dropLease();
      this.#look();
    } else if (now >= safeUntil(this.#lease)) {
      this.#dropLease();
      this.#rest(now);
    } else {
      this.#go('leading');
      this.#leader = null;
      this.#isRenewing = false;
      this.#renewAt = now + this.#lease.ms / RENEWALS;
      this.#effects.push({ type: 'lead', created });
    }
  }

  #onRenewed({ lease, askedAt, ms }: Extract<ElectionEvent, { type: 'renewed' }>, now: number): void {
    if (this.#state !== 'leading' || lease !== this.#lease?.id) return;
    this.#isRenewing = false;
    // Late is late, whatever the store says: it may have been silent, and must not speak again as if nothing had been.
    if (!this.mayLead(now)) {
      this.#yield('it could not renew its lease in time', now);
      return;
    }
    this.#lease = { id: lease, ms, until: Math.max(this.#lease.until, askedAt + ms) };
    this.#renewAt = askedAt + ms / RENEWALS;
  }

  #onFailed(asked: ElectionEffect['type'], now: number): void {
    if (asked === 'renew' && this.#state === 'leading') {
      this.#isRenewing = false;
      this.#renewAt = now + this.#pause;
    } else if (asked === 'look' && this.#state === 'looking') {
      this.#rest(now);
    } else if (asked === 'grant' && this.#state === 'granting') {
      this.#rest(now);
    } else if (asked === 'campaign' && this.#state === 'campaigning') {
      // It may have the key all the same, but can't know since when: the lease is ended, and the key with it.
      this.#dropLease();
      this.#rest(now);
    } else if (asked === 'lead' && this.#state === 'leading') {
      this.#yield('it could not read what its predecessor stored', now);
    }
  }

  #yield(reason: string, now: number): void {
    if (this.#state !== 'leading') return;
    this.#effects.push({ type: 'yield', reason });
    this.#dropLease();
    this.#rest(now);
  }

  #resign(now: number): void {
    this.#hasResigned = true;
    if (this.#state === 'leading') this.#yield('it was closed', now);
    else this.#dropLease();
  }

  #dropLease(): void {
    if (this.#lease !== null) this.#effects.push({ type: 'revoke', lease: this.#lease.id });
    this.#lease = null;
  }

  #rest(now: number): void {
    this.#go('resting');
    this.#notBefore = now + this.#pause;
  }

  get #pause(): number {
    return this.#leaseMs / RETRIES;
  }

  #go(state: ElectionState): void {
    this.#state = ELECTION.step(this.#state, state);
  }
}

function safeUntil({ until, ms }: HeldLease): number {
  return until - MARGIN * ms;
}
