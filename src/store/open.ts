/** Stores as they are named on a command line. */
import type { Clock } from '../transport/clock.ts';
import { EtcdStore, parseEtcd } from './etcd.ts';
import type { EtcdAccess } from './etcd-access.ts';
import { fileStore } from './file.ts';
import { MemoryStore } from './memory.ts';
import type { Store } from './store.ts';

const ETCD = 'etcd:';

/** A call must fail early enough for others within the same lease. */
const CALLS_PER_LEASE = 4;
const SHORTEST_CALL_MS = 250;

/**
 * @param named `etcd:http://a:2379,http://b:2379`, else the path of a file; nothing: what is forgotten when the process ends
 * @param access to etcd
 * @throws ArgumentError, StoreError
 */
export async function openStore(
  named: string | Store | undefined,
  leaseMs: number,
  clock: Clock,
  access: EtcdAccess = {},
): Promise<Store> {
  if (named === undefined) return new MemoryStore(clock, false);
  if (typeof named !== 'string') return named;
  if (!named.startsWith(ETCD)) return fileStore(named);
  const { endpoints, prefix } = parseEtcd(named.slice(ETCD.length));
  return new EtcdStore(endpoints, { prefix, callMs: Math.max(SHORTEST_CALL_MS, leaseMs / CALLS_PER_LEASE), access });
}
