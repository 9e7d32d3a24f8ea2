/**
 * Who holds the others up: a machine at the coordinator, fed with what the members tell of their waiting. After C4D (Dong et
 * al., "Boosting Large-scale Parallel Training Efficiency with C4", 2024): a peer that waits for others is a victim; one for
 * whom others wait, and that itself waits for nobody, is the cause.
 *
 * Members tell, once a second and only if there is something to tell, how long they waited for each peer: to receive (nothing
 * came, although something was due) and to send (what was queued for it did not leave).
 */
import type { Excludable } from '../wire/peer-messages.ts';

/** A report counts for so long: a little more than the time between two (ms). */
const REPORT_MS = 1_600;

/** Of the time between two reports, others must have waited at least so long (ms). */
const SLOW_MS = 500;

/** Looks that must agree, one after the other: one report may be seen by two of them. */
const LOOKS = 3;

/** A collective must have waited for a peer at so many looks, however long others have. */
const CALL_LOOKS = 3;

/** The same peer is named no more often than this (ms). */
const SILENCE_MS = 10_000;

export interface Wait {
  readonly peerId: string;
  readonly receiveMs: number;
  readonly sendMs: number;
  /** Collectives that wait for it, and could do without. */
  readonly calls: readonly Excludable[];
}

export interface SlowPeer {
  readonly peerId: string;
  /** Who waits to receive from it. */
  readonly waiting: readonly string[];
  /** Whose data for it does not leave: then the way between the two may be the cause. */
  readonly blocked: readonly string[];
  /** The longest of these waits, in the last second. */
  readonly waitedMs: number;
}

/** A member that is surely the cause. */
export interface Verdict {
  readonly slow: SlowPeer;
  /** It was not named lately. */
  readonly isNews: boolean;
  /** Whoever waits for it, and in which collectives that could do without. */
  readonly calls: readonly { readonly by: string; readonly call: Excludable }[];
}

interface Report {
  readonly at: number;
  readonly waits: readonly Wait[];
}

export class Stragglers {
  readonly #reports: Map<string, Report> = new Map();
  /** How often in a row somebody was suspected. */
  readonly #suspected: Map<string, number> = new Map();
  readonly #named: Map<string, number> = new Map();
  /** At how many looks in a row a collective waited for a peer. */
  #waiting: Map<string, number> = new Map();

  report(peerId: string, waits: readonly Wait[], now: number): void {
    this.#reports.set(peerId, { at: now, waits });
  }

  forget(peerId: string): void {
    for (const map of [this.#reports, this.#suspected, this.#named]) map.delete(peerId);
  }

  /** Whether a peer itself waits for others: then it is a victim, whoever waits for it. */
  isWaiting(peerId: string): boolean {
    return this.#reports.get(peerId)?.waits.some((wait) => wait.receiveMs >= SLOW_MS) === true;
  }

  /** To be called once a second: those who are surely the cause. */
  look(members: readonly string[], now: number): readonly Verdict[] {
    for (const [peerId, { at }] of this.#reports) if (now - at > REPORT_MS) this.#reports.delete(peerId);
    this.#countWaiting();
    const found = members.flatMap((peerId) => {
      const slow = this.#judge(peerId);
      if (slow === null) this.#suspected.delete(peerId);
      else this.#suspected.set(peerId, (this.#suspected.get(peerId) ?? 0) + 1);
      return slow === null ? [] : [slow];
    });
    const sure = found.filter(({ peerId }) => (this.#suspected.get(peerId) ?? 0) >= LOOKS);
    return sure.map((slow) => {
      const isNews = now - (this.#named.get(slow.peerId) ?? Number.NEGATIVE_INFINITY) >= SILENCE_MS;
      if (isNews) this.#named.set(slow.peerId, now);
      return { slow, isNews, calls: this.#callsOn(slow.peerId) };
    });
  }

  #countWaiting(): void {
    const keys = new Set<string>();
    for (const { waits } of this.#reports.values())
      for (const { peerId, calls } of waits) for (const { id } of calls) keys.add(`${peerId} ${id}`);
    const before = this.#waiting;
    this.#waiting = new Map([...keys].map((key) => [key, (before.get(key) ?? 0) + 1]));
  }

  #callsOn(peerId: string): Verdict['calls'] {
    const isLong = ({ id }: Excludable) => (this.#waiting.get(`${peerId} ${id}`) ?? 0) >= CALL_LOOKS;
    return [...this.#reports].flatMap(([by, { waits }]) =>
      waits.flatMap((wait) => (wait.peerId === peerId ? wait.calls.filter(isLong).map((call) => ({ by, call })) : [])),
    );
  }

  #judge(peerId: string): SlowPeer | null {
    const waiting: string[] = [];
    const blocked: string[] = [];
    let waitedMs = 0;
    for (const [other, { waits }] of this.#reports) {
      for (const wait of waits) {
        if (wait.peerId !== peerId || other === peerId) continue;
        if (wait.receiveMs >= SLOW_MS) waiting.push(other);
        if (wait.sendMs >= SLOW_MS) blocked.push(other);
        waitedMs = Math.max(waitedMs, wait.receiveMs);
      }
    }
    const own = Math.max(0, ...(this.#reports.get(peerId)?.waits.map((wait) => wait.receiveMs) ?? []));
    return waiting.length === 0 || own > waitedMs / 2 ? null : { peerId, waiting, blocked, waitedMs };
  }
}
