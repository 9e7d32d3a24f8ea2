/** Stands for election among the coordinators that share a store: carries out what the machine wants (`membership/election.ts`). */
import { Election, type ElectionEffect, type ElectionEvent, type LeaderKey } from '../membership/election.ts';
import type { Store } from '../store/store.ts';
import { type Clock, every } from '../transport/clock.ts';
import { LEADER_KEY, Ledger, readLeader, writeLeader } from './ledger.ts';

export interface CandidacyOptions {
  /** Other than every other candidate's. */
  readonly id: string;
  /** Where peers find it. */
  readonly address: string;
  readonly leaseMs: number;
  readonly clock: Clock;
  abortController(): AbortController;
}

export interface CandidacyEvents {
  /** It leads; what its predecessor stored is in the ledger. */
  onLead(ledger: Ledger): void;
  /** From this moment on it must say nothing more. */
  onYield(reason: string): void;
  /** Another one leads. */
  onFollow(leader: LeaderKey): void;
  /** The store can't be used; it goes on trying. */
  onTrouble(reason: string): void;
}

/** Between looks at the lease (ms). */
const TICK_MS = 25;

/** After a watch that failed, which it may do at once (ms). */
const WATCH_AGAIN_MS = 200;

export class Candidacy {
  readonly #store: Store;
  readonly #options: CandidacyOptions;
  readonly #events: CandidacyEvents;
  readonly #election: Election;
  readonly #stopTicks: () => void;
  readonly #closing: AbortController;
  /** The revocation of the last lease, which lets others lead at once. */
  #revoked: Promise<void> = Promise.resolve();
  #isLeading = false;
  /** Revision of the leader's key when it was last looked at. */
  #seen = 0;
  /** Whom it follows: revision in which that one's key came to be. */
  #followed = 0;
  /** Revision in which this candidate's own key came to be. */
  #created = 0;

  constructor(store: Store, options: CandidacyOptions, events: CandidacyEvents) {
    this.#store = store;
    this.#options = options;
    this.#events = events;
    this.#election = new Election(options.leaseMs);
    this.#closing = options.abortController();
    this.#stopTicks = every(options.clock, TICK_MS, () => this.#step({ type: 'tick' }));
    this.#step({ type: 'tick' });
  }

  /** Whether what this coordinator says now still counts. Gives up the leadership where it does not. */
  get mayLead(): boolean {
    if (!this.#isLeading) return false;
    const { clock } = this.#options;
    if (!this.#election.mayLead(clock.now())) this.#step({ type: 'tick' });
    return this.#isLeading;
  }

  /** Where the one that leads can be found, as far as known; null where it is this one. */
  get leader(): string | null {
    return this.#election.leader?.address ?? null;
  }

  /** A guarded write was refused. */
  onRefused(): void {
    this.#step({ type: 'refused' });
  }

  /** Resolves when the store knows that it does not lead any more, if it can be told. */
  async close(): Promise<void> {
    this.#stopTicks();
    this.#step({ type: 'resign' });
    this.#closing.abort();
    await this.#revoked;
  }

  #step(event: ElectionEvent): void {
    for (const effect of this.#election.step(event, this.#options.clock.now())) this.#carryOut(effect);
  }

  #carryOut(effect: ElectionEffect): void {
    switch (effect.type) {
      case 'lead':
        this.#try(effect.type, this.#lead(effect.created));
        break;
      case 'yield':
        if (this.#isLeading) {
          this.#isLeading = false;
          this.#events.onYield(effect.reason);
        }
        break;
      case 'revoke':
        this.#revoked = this.#store.revoke(effect.lease).catch(() => {}); // it ends by itself
        break;
      case 'look':
        this.#try(effect.type, this.#look());
        break;
      case 'follow':
        if (effect.leader.created !== this.#followed) this.#events.onFollow(effect.leader);
        this.#followed = effect.leader.created;
        this.#try(effect.type, this.#follow());
        break;
      case 'grant':
        this.#try(effect.type, this.#grant());
        break;
      case 'campaign':
        this.#try(effect.type, this.#campaign(effect.lease));
        break;
      case 'renew':
        this.#try(effect.type, this.#renew(effect.lease));
        break;
      default:
        effect satisfies never;
    }
  }

  #try(asked: ElectionEffect['type'], attempt: Promise<ElectionEvent | null>): void {
    attempt.then(
      (event) => {
        if (event !== null) this.#step(event);
      },
      (error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error);
        if (!this.#closing.signal.aborted) this.#events.onTrouble(reason);
        this.#step({ type: 'failed', asked, reason });
      },
    );
  }

  async #look(): Promise<ElectionEvent> {
    const entry = await this.#store.get(LEADER_KEY);
    this.#seen = entry?.modified ?? 0;
    return { type: 'seen', leader: entry === null ? null : readLeader(entry) };
  }

  /** A watch may be broken without a word, so it ends after a lease's time, and the key is looked at again. */
  async #follow(): Promise<ElectionEvent> {
    const { leaseMs, clock } = this.#options;
    try {
      await this.#store.changed(LEADER_KEY, this.#seen, leaseMs, this.#closing.signal);
    } catch {
      await new Promise<void>((resolve) => void clock.schedule(WATCH_AGAIN_MS, resolve));
    }
    return { type: 'changed' };
  }

  async #grant(): Promise<ElectionEvent> {
    const askedAt = this.#options.clock.now();
    const { id, ms } = await this.#store.grant(this.#options.leaseMs);
    return { type: 'granted', lease: id, askedAt, ms };
  }

  async #campaign(lease: string): Promise<ElectionEvent> {
    const { id, address } = this.#options;
    const put = { put: LEADER_KEY, value: writeLeader(id, address), lease };
    const created = await this.#store.commit([{ key: LEADER_KEY, created: 0 }], [put]);
    this.#created = created ?? 0;
    return { type: 'campaigned', lease, created };
  }

  /**
   * A member of etcd that was cut off from the others may take itself for their leader for a moment, and renew a lease that they
   * don't hear of. A read is only answered with the others' consent: after one, whoever renewed it did so for all.
   */
  async #renew(lease: string): Promise<ElectionEvent> {
    const askedAt = this.#options.clock.now();
    const renewed = await this.#store.keepAlive(lease);
    const entry = renewed === null ? null : await this.#store.get(LEADER_KEY);
    if (renewed === null || entry?.created !== this.#created) return { type: 'lapsed', lease };
    return { type: 'renewed', lease, askedAt, ms: renewed.ms };
  }

  async #lead(created: number): Promise<null> {
    const ledger = await Ledger.open(this.#store, created);
    // It may have lost the key meanwhile, and even won another.
    if (created !== this.#created || !this.#election.mayLead(this.#options.clock.now())) return null;
    this.#isLeading = true;
    this.#events.onLead(ledger);
    return null;
  }
}
