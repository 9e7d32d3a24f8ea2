/**
 * A small internet for tests, of network namespaces: a public network, boxes that translate addresses or block, and hosts.
 * Removed with all that runs in it when it is disposed of, and also when its process is killed. Needs root, `ip` and `nft`.
 *
 *     host ──┐                               ┌── public host
 *     host ──┤ in │ box (NAT) │ out ── public network ── coturn
 *                                            └── out │ box (NAT) │ in ── host
 */
import { NamespaceSet } from '../../src/chaos/namespace-set.ts';
import { type Coturn, startCoturn } from './coturn.ts';
import { HostProcess } from './host-process.ts';
import { type BoxKind, droppingRules, INNER_DEVICE, OUTER_DEVICE, rulesOf } from './rules.ts';

/** How a host is connected: directly to the public network, or behind a box. */
export type NatKind = 'open' | BoxKind;

/** Of the addresses that are kept for examples (RFC 5737). */
const PUBLIC_SUBNET = '198.51.100';
/** As at home, everywhere the same: a host may find its own address among another's. */
const PRIVATE_SUBNET = '192.168.1';
const FIRST_HOST = 10;

const BACKBONE = 'backbone';
const HOST_DEVICE = 'net';

interface SpawnOptions {
  /** Added to this process's own. */
  readonly environment?: NodeJS.ProcessEnv;
  /** When it is killed (ms). */
  readonly deadlineMs?: number;
}

/** A bridge in a namespace, and the addresses on it. */
class Network {
  readonly #set: NamespaceSet;
  readonly #label: string;
  readonly #bridge: string;
  readonly #subnet: string;
  /** The bridge's own address. */
  readonly #gateway: string;
  #attached = 0;

  constructor(set: NamespaceSet, label: string, bridge: string, subnet: string) {
    this.#set = set;
    this.#label = label;
    this.#bridge = bridge;
    this.#subnet = subnet;
    this.#gateway = `${subnet}.1`;
    set.ip(label, [
      `link add ${bridge} type bridge`,
      `addr add ${this.#gateway}/24 dev ${bridge}`,
      `link set ${bridge} up`,
    ]);
  }

  /** Connects a namespace by a device of its own; its address here. */
  attach(label: string, device: string): string {
    const port = `port${this.#attached}`;
    const address = `${this.#subnet}.${FIRST_HOST + this.#attached++}`;
    this.#set.ip(this.#label, [
      `link add ${port} type veth peer name ${device} netns ${this.#set.nameOf(label)}`,
      `link set ${port} master ${this.#bridge} up`,
    ]);
    this.#set.ip(label, [
      `addr add ${address}/24 dev ${device}`,
      `link set ${device} up`,
      `route add default via ${this.#gateway}`,
    ]);
    return address;
  }
}

/** A computer with one network device. */
export class Host {
  /** In the network to which it is attached. */
  readonly address: string;
  readonly #set: NamespaceSet;
  readonly #label: string;
  readonly #processes: Set<HostProcess>;

  constructor(set: NamespaceSet, label: string, address: string, processes: Set<HostProcess>) {
    this.#set = set;
    this.#label = label;
    this.address = address;
    this.#processes = processes;
  }

  /** The command that runs `command` on this host, for those who start it themselves. */
  wrap(command: readonly [string, ...string[]]): [string, ...string[]] {
    return this.#set.wrap(this.#label, command);
  }

  /** Environment for what is wrapped. */
  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, ...this.#set.environment };
  }

  /** From now on it reaches its own network only. */
  forgetRoute(): void {
    this.#set.ip(this.#label, ['route del default']);
  }

  /** From now on, what comes to it from this address by this protocol vanishes. */
  dropFrom(address: string, protocol: 'tcp' | 'udp'): void {
    this.#set.inside(this.#label, ['nft', '-f', '-'], droppingRules(address, protocol));
  }

  /** From now on nothing vanishes any more. */
  dropNothing(): void {
    this.#set.inside(this.#label, ['nft', 'flush', 'ruleset']);
  }

  /** Runs a program on this host until it ends, its deadline passes or the internet is disposed of. */
  spawn(command: readonly [string, ...string[]], options: SpawnOptions = {}): HostProcess {
    const environment = { ...this.environment, ...options.environment };
    const started = new HostProcess(this.wrap(command), environment, options.deadlineMs);
    this.#processes.add(started);
    void started.ended.then(() => this.#processes.delete(started));
    return started;
  }

  /** Runs a script with Node; of a test's own TypeScript, what was built from it. */
  node(script: string, args: readonly string[] = [], options: SpawnOptions = {}): HostProcess {
    return this.spawn([process.execPath, script, ...args], options);
  }
}

/** A way to be connected, for any number of hosts that share it. */
export class Nat {
  readonly kind: NatKind;
  /** Of the box, in the public network; null when there is no box. */
  readonly address: string | null;
  readonly #addHost: () => Host;

  constructor(kind: NatKind, address: string | null, addHost: () => Host) {
    this.kind = kind;
    this.address = address;
    this.#addHost = addHost;
  }

  host(): Host {
    return this.#addHost();
  }
}

export class Internet {
  readonly #set: NamespaceSet = new NamespaceSet();
  readonly #public: Network;
  readonly #processes: Set<HostProcess> = new Set();
  #boxes = 0;
  #hosts = 0;

  /** @throws Error when one of the tools fails; what was made until then is removed */
  constructor() {
    try {
      this.#set.add(BACKBONE);
      // As on the internet, there is a way to addresses that nobody has, and what is sent to them vanishes.
      this.#set.configure(BACKBONE, { ip_forward: 0 });
      this.#public = new Network(this.#set, BACKBONE, 'bridge', PUBLIC_SUBNET);
    } catch (error) {
      this.#set.remove();
      throw error;
    }
  }

  nat(kind: NatKind): Nat {
    if (kind === 'open') return new Nat(kind, null, () => this.#addHost(this.#public));
    const box = `box${this.#boxes++}`;
    this.#set.add(box);
    const address = this.#public.attach(box, OUTER_DEVICE);
    const inner = new Network(this.#set, box, INNER_DEVICE, PRIVATE_SUBNET);
    this.#set.inside(box, ['nft', '-f', '-'], rulesOf(kind));
    this.#set.configure(box, { ip_forward: 1 });
    return new Nat(kind, address, () => this.#addHost(inner));
  }

  /** One more host of the public network. */
  host(): Host {
    return this.#addHost(this.#public);
  }

  #addHost(network: Network): Host {
    const label = `host${this.#hosts++}`;
    this.#set.add(label);
    return new Host(this.#set, label, network.attach(label, HOST_DEVICE), this.#processes);
  }

  /** Starts a server of STUN and TURN on a public host of its own. @param deadlineMs when it is killed */
  coturn(deadlineMs?: number): Promise<Coturn> {
    return startCoturn(this.host(), deadlineMs);
  }

  /**
   * The same, on a host that knows no way out of the public network, as in a company's own. Peers ask a server to try all
   * addresses of the other peer, of which some are private; coturn ends the allocation of whoever asks it to send where it
   * can't. So peers that need a relay find one here only if they don't try anything else (`iceTransportPolicy: 'relay'`).
   */
  strandedCoturn(): Promise<Coturn> {
    const host = this.host();
    host.forgetRoute();
    return startCoturn(host);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#processes].map((one) => one.kill()));
    this.#set.remove();
  }
}
