/**
 * Whom a peer follows in a sync.
 *
 * - `majority`: what most members hold that were in step before. At the start of a run, what most hold at all.
 * - `highest-revision`: the highest revision, for restarts from checkpoints of different age.
 * - `send-only`: the others take what this peer holds. Several that send must hold the same.
 * - `receive-only`: this peer takes what the others hold; what it holds counts for nothing.
 */
export type SyncStrategy = 'majority' | 'highest-revision' | 'send-only' | 'receive-only';

export const STRATEGIES: readonly SyncStrategy[] = ['majority', 'highest-revision', 'send-only', 'receive-only'];
