/**
 * A network for one run of processes: each in a network namespace of its own, all behind one router, so that packets between
 * them can be dropped, slowed down and diverted without touching the machine's own network. Needs root, `ip`, `nft` and `tc`.
 *
 *     peer 0 ─────── veth ──┐
 *     peer 1 ─────── veth ──┤ router ── TUN ── relay (for those whose packets are diverted)
 *     coordinator ── veth ──┘
 */
import { existsSync } from 'node:fs';
import { NamespaceSet, programMissing, runTool } from './namespace-set.ts';

const SUBNET = '10.83.0';
const ROUTER_ADDRESS = `${SUBNET}.1`;
const COORDINATOR_HOST = 2;
const FIRST_PEER_HOST = 10;

/** Peers whose addresses fit behind the first one's. */
export const MAX_NAMESPACED_PEERS = 200;

/** The router's door to the relay, and the routing table of those who must take it. */
export const RELAY_DEVICE = 'relay';
const RELAY_TABLE = '83';
/** Rules of lower number come first: what comes from the relay is not sent to it again. */
const FROM_RELAY_PRIORITY = '10';
const DIVERT_PRIORITY = '20';

/** Who is behind the router. */
type Leaf = number | 'coordinator';

/** What is missing for the relay of packets besides, in words; null when it can be had. */
export function relayMissing(): string | null {
  if (!existsSync('/dev/net/tun')) return 'the kernel has no TUN devices (/dev/net/tun)';
  return programMissing('socat', '-V', 'socat');
}

export class Namespaces {
  readonly #set: NamespaceSet;

  /** @throws Error when one of the tools fails; what was made until then is removed */
  constructor(peers: number) {
    if (peers > MAX_NAMESPACED_PEERS) throw new Error(`There are addresses for ${MAX_NAMESPACED_PEERS} peers only.`);
    this.#set = new NamespaceSet();
    try {
      this.#makeRouter();
      for (const leaf of [...Array.from({ length: peers }, (_, index) => index), 'coordinator' as const])
        this.#makeLeaf(leaf);
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  #makeRouter(): void {
    const router = this.#name('router');
    this.#set.add('router');
    // A reply may take another way than the packet that it answers.
    this.#set.configure('router', { ip_forward: 1, 'conf/all/rp_filter': 0, 'conf/default/rp_filter': 0 });
    runTool('ip', ['-n', router, 'addr', 'add', `${ROUTER_ADDRESS}/32`, 'dev', 'lo']);
  }

  #makeLeaf(leaf: Leaf): void {
    const [router, name, device] = [this.#name('router'), this.#name(leaf), deviceOf(leaf)];
    this.#set.add(device);
    runTool('ip', ['-n', router, 'link', 'add', device, 'type', 'veth', 'peer', 'name', 'net', 'netns', name]);
    runTool('ip', ['-n', router, 'link', 'set', device, 'up']);
    runTool('ip', ['-n', router, 'route', 'add', `${this.address(leaf)}/32`, 'dev', device]);
    runTool('ip', ['-n', name, 'addr', 'add', `${this.address(leaf)}/32`, 'dev', 'net']);
    runTool('ip', ['-n', name, 'link', 'set', 'net', 'up']);
    runTool('ip', ['-n', name, 'route', 'add', 'default', 'via', ROUTER_ADDRESS, 'dev', 'net', 'onlink']);
    this.#set.inside(device, ['nft', 'add', 'table', 'inet', 'weather']);
    for (const hook of ['input', 'output']) {
      const kind = `{ type filter hook ${hook} priority 0; }`;
      this.#set.inside(device, ['nft', 'add', 'chain', 'inet', 'weather', hook, kind]);
    }
  }

  #name(where: Leaf | 'router'): string {
    return this.#set.nameOf(deviceOf(where));
  }

  address(leaf: Leaf): string {
    return `${SUBNET}.${leaf === 'coordinator' ? COORDINATOR_HOST : FIRST_PEER_HOST + leaf}`;
  }

  /** The command that runs `command` in somebody's namespace. */
  wrap(where: Leaf | 'router', command: readonly [string, ...string[]]): [string, ...string[]] {
    return this.#set.wrap(deviceOf(where), command);
  }

  /** Environment for what is wrapped: where `ip` is found. */
  get environment(): NodeJS.ProcessEnv {
    return this.#set.environment;
  }

  /** Drops everything between a peer and these others, or between it and everybody. */
  drop(index: number, others: readonly Leaf[] | 'all'): void {
    const addresses = others === 'all' ? null : others.map((one) => this.address(one)).join(', ');
    if (addresses === '') return;
    for (const [hook, field] of [
      ['input', 'saddr'],
      ['output', 'daddr'],
    ] as const) {
      const match = addresses === null ? ['oifname', '!=', 'lo'] : ['ip', field, `{ ${addresses} }`];
      const side = addresses === null && hook === 'input' ? ['iifname', '!=', 'lo'] : match;
      this.#addRule(index, hook, ...side, 'drop');
    }
  }

  /** Loses so many of a hundred packets that a peer receives. */
  lose(index: number, percent: number): void {
    this.#addRule(index, 'input', 'iifname', 'net', 'numgen', 'random', 'mod', '100', '<', String(percent), 'drop');
  }

  /** Answers what a peer sends to these others with a reset, as if they knew nothing of its connections. */
  reset(index: number, others: readonly Leaf[]): void {
    const addresses = others.map((one) => this.address(one)).join(', ');
    this.#addRule(
      index,
      'output',
      'meta',
      'l4proto',
      'tcp',
      'ip',
      'daddr',
      `{ ${addresses} }`,
      'reject',
      'with',
      'tcp',
      'reset',
    );
  }

  #addRule(index: number, hook: 'input' | 'output', ...rule: readonly string[]): void {
    this.#set.inside(deviceOf(index), ['nft', 'add', 'rule', 'inet', 'weather', hook, ...rule]);
  }

  /** Ends what `drop`, `lose` and `reset` began. */
  heal(index: number): void {
    this.#set.inside(deviceOf(index), ['nft', 'flush', 'table', 'inet', 'weather']);
  }

  /** Limits what a peer sends and receives to so many Mbit/s; null ends that. */
  shape(index: number, megabits: number | null): void {
    const sides = [
      [this.#name(index), 'net'],
      [this.#name('router'), deviceOf(index)],
    ] as const;
    for (const [name, device] of sides) {
      if (megabits === null) runTool('tc', ['-n', name, 'qdisc', 'del', 'dev', device, 'root']);
      else {
        const limits = ['rate', `${megabits}mbit`, 'burst', '256kb', 'latency', '50ms'];
        runTool('tc', ['-n', name, 'qdisc', 'replace', 'dev', device, 'root', 'tbf', ...limits]);
      }
    }
  }

  /** Makes the door to the relay, through which `divert` sends packets. */
  openRelay(): void {
    const router = this.#name('router');
    runTool('ip', ['-n', router, 'tuntap', 'add', 'dev', RELAY_DEVICE, 'mode', 'tun']);
    runTool('ip', ['-n', router, 'link', 'set', RELAY_DEVICE, 'txqueuelen', '5000']);
    runTool('ip', ['-n', router, 'link', 'set', RELAY_DEVICE, 'up']);
    runTool('ip', ['-n', router, 'rule', 'add', 'pref', FROM_RELAY_PRIORITY, 'iif', RELAY_DEVICE, 'lookup', 'main']);
    runTool('ip', ['-n', router, 'route', 'add', 'default', 'dev', RELAY_DEVICE, 'table', RELAY_TABLE]);
  }

  /** Sends what a peer sends and receives through the relay, or no longer. */
  divert(index: number, on: boolean): void {
    for (const side of ['from', 'to'])
      runTool('ip', [
        ...['-n', this.#name('router'), 'rule', on ? 'add' : 'del', 'pref', DIVERT_PRIORITY],
        ...[side, this.address(index), 'lookup', RELAY_TABLE],
      ]);
  }

  /** Removes everything that was made, and kills what still runs in there. */
  remove(): void {
    this.#set.remove();
  }
}

/** The router's end of the way to a leaf, and the end of the names of namespaces. */
function deviceOf(where: Leaf | 'router'): string {
  return typeof where === 'number' ? `peer${where}` : where;
}
