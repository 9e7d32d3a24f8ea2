/**
 * A network for one run of processes: each in a network namespace of its own, all on one bridge, so that packets between
 * them can be dropped and their rates limited without touching the machine's own network. Needs root, `ip`, `nft` and `tc`.
 *
 *     peer 0 ── veth ──┐
 *     peer 1 ── veth ──┤ bridge in the hub's namespace (where the coordinator runs)
 *     peer 2 ── veth ──┘
 */
import { execFileSync } from 'node:child_process';

/** Debian keeps them where no user's path leads. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

const SUBNET = '10.83.0';
const HUB_HOST = 1;
const FIRST_PEER_HOST = 10;

/** Peers whose addresses fit behind the first one's. */
export const MAX_NAMESPACED_PEERS = 200;

function run(program: string, args: readonly string[]): void {
  try {
    execFileSync(program, args, { env: { ...process.env, PATH }, stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    const text = (error as { stderr?: Buffer }).stderr?.toString().trim() ?? '';
    throw new Error(`${program} ${args.join(' ')} failed: ${text === '' ? String(error) : text}`, { cause: error });
  }
}

/** What is missing for namespaces, in words; null when they can be made. */
export function namespacesMissing(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a feature of Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  for (const [program, argument] of [
    ['ip', '-Version'],
    ['nft', '--version'],
    ['tc', '-Version'],
  ] as const) {
    try {
      run(program, [argument]);
    } catch {
      return `there is no ${program} (Debian packages iproute2 and nftables)`;
    }
  }
  return null;
}

export class Namespaces {
  readonly #prefix: string;
  readonly #count: number;

  /** @throws Error when one of the tools fails; what was made until then is removed */
  constructor(count: number) {
    if (count > MAX_NAMESPACED_PEERS) throw new Error(`There are addresses for ${MAX_NAMESPACED_PEERS} peers only.`);
    this.#prefix = `skein${process.pid}`;
    this.#count = count;
    try {
      this.#make();
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  #make(): void {
    run('ip', ['netns', 'add', this.#hub]);
    this.#inside(this.#hub, 'ip', 'link', 'add', 'bridge', 'type', 'bridge');
    this.#inside(this.#hub, 'ip', 'addr', 'add', `${this.hubAddress}/24`, 'dev', 'bridge');
    this.#inside(this.#hub, 'ip', 'link', 'set', 'bridge', 'up');
    this.#inside(this.#hub, 'ip', 'link', 'set', 'lo', 'up');
    for (let index = 0; index < this.#count; index++) {
      const name = this.#peer(index);
      run('ip', ['netns', 'add', name]);
      this.#inside(
        this.#hub,
        'ip',
        'link',
        'add',
        `peer${index}`,
        'type',
        'veth',
        'peer',
        'name',
        'net',
        'netns',
        name,
      );
      this.#inside(this.#hub, 'ip', 'link', 'set', `peer${index}`, 'master', 'bridge', 'up');
      this.#inside(name, 'ip', 'addr', 'add', `${this.address(index)}/24`, 'dev', 'net');
      this.#inside(name, 'ip', 'link', 'set', 'net', 'up');
      this.#inside(name, 'ip', 'link', 'set', 'lo', 'up');
      this.#inside(name, 'nft', 'add', 'table', 'inet', 'weather');
      for (const hook of ['input', 'output'])
        this.#inside(name, 'nft', 'add', 'chain', 'inet', 'weather', hook, `{ type filter hook ${hook} priority 0; }`);
    }
  }

  get #hub(): string {
    return `${this.#prefix}hub`;
  }

  #peer(index: number): string {
    return `${this.#prefix}peer${index}`;
  }

  #inside(name: string, ...command: readonly string[]): void {
    run('ip', ['netns', 'exec', name, ...command]);
  }

  get hubAddress(): string {
    return `${SUBNET}.${HUB_HOST}`;
  }

  address(index: number): string {
    return `${SUBNET}.${FIRST_PEER_HOST + index}`;
  }

  /** The command that runs `command` in a peer's namespace, or in the hub's. */
  wrap(where: number | 'hub', command: readonly [string, ...string[]]): [string, ...string[]] {
    return ['ip', 'netns', 'exec', where === 'hub' ? this.#hub : this.#peer(where), ...command];
  }

  /** Environment for what is wrapped: where `ip` is found. */
  get environment(): NodeJS.ProcessEnv {
    return { PATH };
  }

  /** Drops everything between a peer and these others (peers or the hub), or between it and everybody. */
  drop(index: number, others: readonly (number | 'hub')[] | 'all'): void {
    const addresses =
      others === 'all' ? null : others.map((one) => (one === 'hub' ? this.hubAddress : this.address(one))).join(', ');
    if (addresses === '') return;
    for (const [hook, field] of [
      ['input', 'saddr'],
      ['output', 'daddr'],
    ] as const) {
      const match = addresses === null ? ['oifname', '!=', 'lo'] : ['ip', field, `{ ${addresses} }`];
      const side = addresses === null && hook === 'input' ? ['iifname', '!=', 'lo'] : match;
      this.#inside(this.#peer(index), 'nft', 'add', 'rule', 'inet', 'weather', hook, ...side, 'drop');
    }
  }

  /** Loses so many of a hundred packets that a peer receives. */
  lose(index: number, percent: number): void {
    const odds = ['numgen', 'random', 'mod', '100', '<', String(percent)];
    this.#inside(
      this.#peer(index),
      'nft',
      'add',
      'rule',
      'inet',
      'weather',
      'input',
      'iifname',
      'net',
      ...odds,
      'drop',
    );
  }

  /** Ends what `drop` and `lose` began. */
  heal(index: number): void {
    this.#inside(this.#peer(index), 'nft', 'flush', 'table', 'inet', 'weather');
  }

  /** Limits what a peer sends and receives to so many Mbit/s; null ends that. */
  shape(index: number, megabits: number | null): void {
    const sides = [
      [this.#peer(index), 'net'],
      [this.#hub, `peer${index}`],
    ] as const;
    for (const [name, device] of sides) {
      if (megabits === null) this.#inside(name, 'tc', 'qdisc', 'del', 'dev', device, 'root');
      else {
        const limits = ['rate', `${megabits}mbit`, 'burst', '256kb', 'latency', '50ms'];
        this.#inside(name, 'tc', 'qdisc', 'replace', 'dev', device, 'root', 'tbf', ...limits);
      }
    }
  }

  /** Removes everything that was made. What still runs in there keeps its namespace until it ends. */
  remove(): void {
    const names = [...Array.from({ length: this.#count }, (_, index) => this.#peer(index)), this.#hub];
    for (const name of names) {
      try {
        run('ip', ['netns', 'del', name]);
      } catch {
        // It was not made.
      }
    }
  }
}
