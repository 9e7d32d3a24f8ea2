/** What a coordinator is told when it begins to listen. */
import type { EtcdAccess } from '../store/etcd-access.ts';
import type { Store } from '../store/store.ts';
import type { CoordinatorHttpOptions } from './http-server.ts';
import type { IceServerOptions } from './ice.ts';
import type { EncryptionOptions } from './security.ts';

/** Options of `Coordinator.listen`. */
export interface CoordinatorListenOptions extends EncryptionOptions {
  /** TCP port; 0 takes a free one. @default 7400 */
  readonly port?: number;
  /** Address to listen on. Anything but loopback requires a token. @default '127.0.0.1' */
  readonly host?: string;
  /** Secret that peers must know. @default none: only peers on this host are let in */
  readonly token?: string;
  /** Milliseconds between the heartbeats of a peer. @default 250 */
  readonly heartbeatMs?: number;
  /** A silent peer is never lost sooner than this (ms). @default 3000 */
  readonly lostAfterMs?: number;
  /**
   * Where it keeps what a successor must know: the path of a file, which one coordinator uses at a time; `etcd:http://a:2379,http://b:2379`,
   * which several may share: one of them leads, and the others stand by; or a store of your own.
   * @default none: the members' reports must do
   */
  readonly store?: string | Store;
  /** User and certificates with which etcd lets this coordinator in. @default none */
  readonly etcd?: EtcdAccess;
  /**
   * Where several share a store: so long after the last word of one that leads another takes over (ms). etcd counts whole seconds,
   * and no fewer than two. @default 3000
   */
  readonly leaseMs?: number;
  /** Where several share a store: the address at which peers reach this one, `tcp://host:port`. @default where it listens */
  readonly advertise?: string;
  /**
   * Whether members are asked to measure the ways to one another that carry nothing, for the order of the ring: up to half a MiB for each pair on
   * different hosts, one at a time for each peer, if possible between calls; again after ten minutes, on the present ring after one. @default true
   */
  readonly probes?: boolean;
  /** STUN and TURN servers for peers that use WebRTC. @default none: only paths on which nobody translates addresses */
  readonly iceServers?: readonly IceServerOptions[];
  /**
   * An HTTP port, for peers in browsers: they reach the coordinator by WebSocket. With `cert` and `key` it is HTTPS; without, it is in
   * the clear, keys of pairs included: on any other network than loopback put a proxy before it that ends TLS. @default none
   */
  readonly http?: CoordinatorHttpOptions;
  /** Receives a line for each change of membership, and for those who were turned away. @default none */
  readonly onNote?: (line: string) => void;
}
