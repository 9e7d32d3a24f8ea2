/** A better path than the first one is looked for, seldom; found, it lies ready until the next boundary. On a virtual clock. */
import { expect, test } from 'vitest';
import { ArenaPool } from '../../src/engine/memory.ts';
import type { PathKind } from '../../src/engine/path-race.ts';
import { Peers } from '../../src/engine/peers.ts';
import { type Platform, systemPlatform } from '../../src/engine/platform.ts';
import { ConnectError } from '../../src/errors.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork } from '../../src/transport/memory.ts';
import type { Address, DialOptions } from '../../src/transport/transport.ts';

const STRIPES = 2;
const KINDS = ['unix', 'tcp'] as const;
const KEY = new Uint8Array(32).fill(3);
const MINUTE_MS = 60_000;

type Kind = (typeof KINDS)[number];

/** Peers that all know one another, and kinds of paths that work or don't. */
class World {
  readonly clock: VirtualClock = new VirtualClock();
  readonly network: MemoryNetwork = new MemoryNetwork({ clock: this.clock, seed: 1 });
  readonly opens: Set<Kind> = new Set(KINDS);
  /** When `a` dialled by each kind (ms). */
  readonly dials: Record<Kind, number[]> = { unix: [], tcp: [] };
  /** What `a` was told, in order. */
  readonly told: (PathKind | null)[] = [];
  readonly peers: Map<string, Peers> = new Map();
  readonly lost: string[] = [];
  /** Dials of `a` that are under way, and the most there ever were. */
  dialling = 0;
  mostDialling = 0;
  #drawn = 1;

  static async open(count: number, opens: readonly Kind[]): Promise<World> {
    const world = new World();
    world.opens.clear();
    for (const kind of opens) world.opens.add(kind);
    const names = Array.from({ length: count }, (_, index) => 'abcdefgh'[index]!);
    const kernels = await loadKernels(64 * 1024);
    for (const name of names) await world.#start(name, new ArenaPool(kernels, 1_024, 0));
    for (const [self, peers] of world.peers)
      for (const peerId of names) if (peerId !== self) peers.add(introductionOf(peerId));
    await world.run(1_000);
    return world;
  }

  async #start(self: string, readBuffers: ArenaPool): Promise<void> {
    const { clock, network } = this;
    const platform: Platform = {
      ...systemPlatform,
      clock,
      random: (length) => Uint8Array.from({ length }, () => this.#draw()),
      dial: (address, options) => this.#dial(self, address, options),
    };
    const settings = { webrtc: null, run: 'run', hostKey: 'host', transports: KINDS, stripes: STRIPES } as const;
    const security = { encryption: 'off-loopback', certificates: null } as const;
    const sink = { onFrame: () => null, onPayload: () => null, onFrameEnd: () => null, close: () => {} };
    const events = {
      openSink: () => sink,
      takeCarry: () => new Uint8Array(64),
      giveCarry: () => {},
      onUp: () => {},
      onFlushed: () => {},
      onLaneClosed: () => this.lost.push(self),
    };
    const peers = new Peers(
      { ...settings, platform, self, security, readBuffers },
      () => events,
      (_, path) => self === 'a' && this.told.push(path),
    );
    this.peers.set(self, peers);
    const onConnection = peers.accept.bind(peers);
    await network.transport(self).listen({ kind: 'memory', name: self }, (connection) => void onConnection(connection));
  }

  #draw(): number {
    this.#drawn = (Math.imul(this.#drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return this.#drawn >>> 24;
  }

  /** By a kind that does not work, nobody answers. */
  async #dial(self: string, address: Address, options: DialOptions) {
    const [kind, name] = address.kind === 'unix' ? (['unix', address.path] as const) : (['tcp', 'b'] as const);
    const to = address.kind === 'tcp' ? 'abcdefgh'[address.port]! : name;
    if (self === 'a') this.dials[kind].push(this.clock.now());
    if (this.opens.has(kind)) return this.network.transport(self).dial({ kind: 'memory', name: to }, options);
    if (self === 'a') this.mostDialling = Math.max(this.mostDialling, ++this.dialling);
    return new Promise<never>((_, reject) => {
      let isOver = false;
      const fail = () => {
        if (isOver) return;
        isOver = true;
        stopTimer();
        if (self === 'a') this.dialling -= 1;
        reject(new ConnectError('nobody answers'));
      };
      const stopTimer = this.clock.schedule(options.timeoutMs, fail);
      options.signal?.addEventListener('abort', fail, { once: true });
    });
  }

  async run(ms: number): Promise<void> {
    const end = this.clock.now() + ms;
    let isDue = false;
    this.clock.schedule(ms, () => {
      isDue = true;
    });
    while (!isDue) {
      this.clock.step();
      for (let turn = 0; turn < 20; turn++) await null;
    }
    expect(this.clock.now()).toBe(end);
  }

  get a(): Peers {
    return this.peers.get('a')!;
  }

  adopt(): void {
    for (const peers of this.peers.values()) peers.adopt();
  }
}

function introductionOf(peerId: string): Parameters<Peers['add']>[0] {
  const port = 'abcdefgh'.indexOf(peerId);
  const addresses = [{ kind: 'tcp', host: '127.0.0.1', port } as const, { kind: 'unix', path: peerId } as const];
  return { peerId, pair: 1, hostKey: 'host', site: '', key: KEY, addresses, cores: 1 };
}

test('a better path is looked for ever more seldom, and adopted at the boundary after it was found', async () => {
  const world = await World.open(2, ['tcp']);
  expect(world.told).toEqual(['tcp']);
  const before = world.dials.unix.length;
  await world.run(10 * MINUTE_MS);
  world.adopt();
  const looks = world.dials.unix.slice(before);
  // Five seconds, and twice as long each time, a quarter more or less; each look takes five seconds more.
  expect(looks.length).toBeGreaterThan(4);
  expect(looks.length).toBeLessThan(9);
  expect(looks[0]! - world.dials.unix[0]!).toBeGreaterThan(3_000);
  const waits = looks.slice(1).map((at, index) => at - looks[index]!);
  for (const [index, wait] of waits.slice(1).entries()) expect(wait).toBeGreaterThan(waits[index]!);
  expect(world.a.failures('b')).toEqual([{ path: 'unix', reason: 'nobody answers' }]);
  expect([world.told, world.lost]).toEqual([['tcp'], []]);

  world.opens.add('unix');
  await world.run(10 * MINUTE_MS);
  expect(world.told, 'not before a boundary').toEqual(['tcp']);
  const dialled = world.dials.unix.length;
  await world.run(10 * MINUTE_MS);
  expect(world.dials.unix.length, 'what was found is not looked for').toBe(dialled);
  world.adopt();
  await world.run(1_000);
  expect([world.told, world.lost]).toEqual([['tcp', 'unix'], []]);
  expect(world.a.failures('b')).toEqual([]);
  expect(world.network.openEnds, 'nothing is left of the old lanes').toBe(4 * STRIPES);
  await world.run(30 * MINUTE_MS);
  expect(world.dials.unix.length, 'nothing is better').toBe(dialled);
  expect([world.a.allUp, world.lost]).toEqual([true, []]);
});

test('who has the best path looks for nothing', async () => {
  const world = await World.open(2, ['unix', 'tcp']);
  const dials = { ...world.dials, unix: [...world.dials.unix] };
  await world.run(30 * MINUTE_MS);
  expect([world.told, world.dials.unix]).toEqual([['unix'], dials.unix]);
});

test('few are looked for at once, and none any more when the peer leaves', async () => {
  const world = await World.open(8, ['tcp']);
  expect(world.told.length).toBe(7);
  world.mostDialling = 0;
  await world.run(2 * MINUTE_MS);
  expect(world.mostDialling).toBe(2);
  while (world.dialling === 0) await world.run(100);
  world.a.close();
  await world.run(0);
  expect(world.dialling, 'they are cancelled').toBe(0);
  const dialled = world.dials.unix.length;
  await world.run(30 * MINUTE_MS);
  expect(world.dials.unix.length).toBe(dialled);
});

test('a lane that is dialled anew comes by the best path, whatever lay ready', async () => {
  const world = await World.open(2, ['tcp']);
  world.opens.add('unix');
  await world.run(MINUTE_MS);
  expect(world.told).toEqual(['tcp']);
  world.a.renew('b', 'of the test'); // which drops both
  await world.run(1_000);
  expect(world.told).toEqual(['tcp', 'unix']);
  expect(world.a.allUp).toBe(true);
});
