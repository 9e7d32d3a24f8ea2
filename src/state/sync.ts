/**
 * A sync, as the training thread drives it: rounds of a census, until it says that all hold the same, or have it ready.
 *
 *     look ──▶ census ──all hold it, or have it ready──▶ settle
 *               ▲  └──some are behind──▶ they fetch ──┐
 *               └─────────────────────────────────────┘
 *
 * - Every round is a collective, so all that return from it know the same, and make the same plan of it. Whoever settles knows that all
 *   others of the last census could.
 * - Rows tell what a peer holds, whatever round it is in. So whoever failed alone, and calls again, falls in with the others' next round.
 * - Who has fetched in vain, as its sources are gone, tells so by its row: the next plan is of those who are left.
 * - A sync that fails leaves the contents and the revision as they were, but on a newcomer that had nothing to lose.
 */
import { MismatchError, ProtocolError, StateLostError, TimeoutError } from '../errors.ts';
import type { Holding, Settlement, StateAnswers, StateAsk } from './asks.ts';
import { makePlan, type NoPlan, ROW_BYTES, type Row, readRow, type SyncPlan, writeRow } from './census.ts';
import { toHex } from './digest.ts';
import type { SyncStrategy } from './strategy.ts';

/** How a sync of the shared state went, for this peer. */
export interface SyncReport {
  /** Of the contents that all have now. */
  readonly revision: number;
  /** Of the contents that all have now: 128 bits, in hex. */
  readonly hash: string;
  /** Bytes of contents that this peer gave to others, and that it took from them. */
  readonly sent: number;
  readonly received: number;
  /** From whom it took them. */
  readonly from: readonly string[];
  /** Bytes that came in the background, before this peer was a member. */
  readonly prefetched: number;
  /**
   * Members that were in step, told the same revision, and held something else: a bit has flipped there, or an update was not the
   * same as everywhere. They hold what the others hold again.
   */
  readonly diverged: readonly string[];
}

/** How a sync reaches its engine and the other members. */
export interface SyncPort {
  readonly self: string;
  /** Milliseconds, monotonic. */
  now(): number;
  engine<T extends StateAsk['type']>(ask: Extract<StateAsk, { type: T }>): Promise<StateAnswers[T]>;
  /** Everybody's row, by rank. */
  gather(row: Uint8Array, timeoutMs: number): Promise<ReadonlyMap<string, Uint8Array>>;
}

export interface SyncCall {
  readonly tag: string;
  readonly revision: number;
  readonly strategy: SyncStrategy;
  /** Names of the entries that may be others than at the last sync; null: all. */
  readonly changed: readonly string[] | null;
  readonly timeoutMs: number;
}

/** @throws MismatchError, StateLostError, TimeoutError, and what a collective throws */
export async function synchronise(
  port: SyncPort,
  call: SyncCall,
): Promise<{ readonly report: SyncReport; readonly isChanged: boolean }> {
  const { tag } = call;
  try {
    const { plan, settlement } = await agree(port, call);
    const { sent, received, from, prefetched, isChanged } = settlement;
    const { revision, diverged } = plan;
    return { report: { revision, hash: toHex(plan.hash), sent, received, from, prefetched, diverged }, isChanged };
  } catch (error) {
    // An engine that has ended holds nothing any more.
    await port.engine({ type: 'abandon', tag }).catch(() => null);
    throw error;
  }
}

async function agree(port: SyncPort, call: SyncCall): Promise<{ plan: SyncPlan; settlement: Settlement }> {
  const { tag, revision, changed, timeoutMs } = call;
  const startedAt = port.now();
  const left = () => timeoutMs - (port.now() - startedAt);
  let holding = await port.engine({ type: 'begin', tag, revision, changed });
  const diverged = new Set<string>();
  for (;;) {
    if (left() <= 0) throw late(call, port.now() - startedAt);
    const told = await port.gather(writeRow(rowOf(call, holding)), left());
    const plan = makePlan(readRows(told));
    if ('code' in plan) throw noPlan(call, plan);
    const misfit = plan.outsiders.get(port.self);
    if (misfit !== undefined) throw noPlan(call, { code: 'mismatch', reason: misfit });
    for (const peerId of plan.diverged) diverged.add(peerId);
    if (plan.isSettled) {
      const settlement = await port.engine({
        type: 'settle',
        tag,
        revision: plan.revision,
        hash: plan.hash,
        diverged: diverged.size,
      });
      return { plan: { ...plan, diverged: [...diverged] }, settlement };
    }
    if (!plan.behind.includes(port.self)) continue;
    const { hash, holders } = plan;
    holding = await port.engine({
      type: 'fetch',
      tag,
      revision: plan.revision,
      hash,
      holders,
      timeoutMs: Math.max(1, left()),
    });
  }
}

function rowOf({ revision, strategy }: SyncCall, { isWhole, isSynced, shape, hash, ready }: Holding): Row {
  return { revision, isWhole, isSynced, strategy, shape, hash, ready };
}

function readRows(told: ReadonlyMap<string, Uint8Array>): Map<string, Row> {
  const rows = new Map<string, Row>();
  for (const [peerId, bytes] of told) {
    const row = bytes.length === ROW_BYTES ? readRow(bytes) : null;
    if (row === null) {
      const text = `A sync failed: what ${peerId} told of its state is not understood. Use the same release of skein everywhere.`;
      throw new ProtocolError(text, { peer: peerId });
    }
    rows.set(peerId, row);
  }
  return rows;
}

function noPlan({ tag }: SyncCall, { code, reason }: NoPlan): MismatchError | StateLostError {
  const name = tag === '' ? 'The shared state' : `The shared state ${JSON.stringify(tag)}`;
  if (code === 'mismatch')
    return new MismatchError(`${name} is not the same on all members: ${reason}. Make them alike.`);
  return new StateLostError(
    `${name} is lost: ${reason}. Load a snapshot or checkpoint, set \`revision\` to its own (1 at least), and call again.`,
  );
}

function late({ tag, timeoutMs }: SyncCall, elapsed: number): TimeoutError {
  const text = `A sync of the shared state ${JSON.stringify(tag)} did not end within ${timeoutMs} ms: some members are still behind. Allow it more time.`;
  return new TimeoutError(text, { op: 'syncState', elapsed: Math.round(elapsed) });
}
