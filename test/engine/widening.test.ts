/** Lanes over long ways get more stripes while they are in use: real peers on a network in memory, on a virtual clock. */
import { describe, expect, test } from 'vitest';
import { ArenaPool } from '../../src/engine/memory.ts';
import { Peers } from '../../src/engine/peers.ts';
import { type Platform, systemPlatform } from '../../src/engine/platform.ts';
import { ConnectError } from '../../src/errors.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork, type Weather } from '../../src/transport/memory.ts';
import { emptyHeader, FRAME_DATA, HEADER_BYTES, writeHeader } from '../../src/wire/frame.ts';

const KEY = new Uint8Array(32).fill(3);
const MIB = 1024 * 1024;
const FRAME_BYTES = 256 * 1024;
const STRIPES = 2;
const LOOK_MS = 25;

/** 100 ms there and back; each connection keeps 1 MiB on the way. */
const LONG: Partial<Weather> = { latencyMs: 50, maxPieceBytes: 64 * 1024, windowBytes: MIB };
const SHORT: Partial<Weather> = { ...LONG, latencyMs: 1, windowBytes: 64 * 1024 };

interface Setting {
  readonly weather: Partial<Weather>;
  /** Null: both are on the same. */
  readonly hostOfB?: string;
  /** Nobody can dial `b`. */
  readonly isHidden?: boolean;
}

class World {
  readonly clock: VirtualClock = new VirtualClock();
  readonly network: MemoryNetwork;
  readonly peers: Map<string, Peers> = new Map();
  readonly lost: string[] = [];
  /** Dials that fail from now on. */
  refuses = false;
  dials = 0;
  came = 0;
  readonly #setting: Setting;
  #drawn = 1;

  static async open(setting: Setting): Promise<World> {
    const world = new World(setting);
    const kernels = await loadKernels(64 * 1024);
    for (const self of ['a', 'b']) await world.#start(self, new ArenaPool(kernels, 1_024, 0));
    for (const [self, peers] of world.peers) peers.add(world.#introductionOf(self === 'a' ? 'b' : 'a'));
    await world.run(10_000);
    expect([...world.peers.values()].map(({ allUp }) => allUp)).toEqual([true, true]);
    return world;
  }

  private constructor(setting: Setting) {
    this.#setting = setting;
    this.network = new MemoryNetwork({ clock: this.clock, seed: 1, weather: setting.weather });
  }

  #introductionOf(peerId: string): Parameters<Peers['add']>[0] {
    const hostKey = peerId === 'b' ? (this.#setting.hostOfB ?? 'host of b') : 'host of a';
    return { peerId, pair: 1, hostKey, site: '', cores: 1, key: KEY, addresses: [{ kind: 'memory', name: peerId }] };
  }

  async #start(self: string, readBuffers: ArenaPool): Promise<void> {
    const { clock, network } = this;
    const transport = network.transport(self);
    const platform: Platform = {
      ...systemPlatform,
      clock,
      random: (length) => Uint8Array.from({ length }, () => this.#draw()),
      dial: (address, options) => {
        this.dials += 1;
        if (this.refuses || (this.#setting.isHidden === true && self === 'a'))
          return Promise.reject(new ConnectError('nobody answers'));
        return transport.dial(address, options);
      },
    };
    const hostKey = this.#introductionOf(self).hostKey;
    const settings = { webrtc: null, run: 'run', hostKey, transports: ['memory'] as const, stripes: STRIPES };
    const security = { encryption: 'off-loopback', certificates: null } as const;
    const sink = {
      onFrame: () => null,
      onPayload: (_: Uint8Array, start: number, end: number) => {
        this.came += end - start;
        return null;
      },
      onFrameEnd: () => null,
      close: () => {},
    };
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
      () => {},
    );
    this.peers.set(self, peers);
    await transport.listen({ kind: 'memory', name: self }, (connection) => void peers.accept(connection));
  }

  #draw(): number {
    this.#drawn = (Math.imul(this.#drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return this.#drawn >>> 24;
  }

  async run(ms: number): Promise<void> {
    let isDue = false;
    this.clock.schedule(ms, () => {
      isDue = true;
    });
    while (!isDue) {
      this.clock.step();
      for (let turn = 0; turn < 20; turn++) await null;
    }
  }

  /** `a` sends to `b` as much as the link takes. @returns bytes that came in a second */
  async send(ms: number): Promise<number> {
    const head = new Uint8Array(HEADER_BYTES);
    writeHeader(new DataView(head.buffer), 0, { ...emptyHeader(), type: FRAME_DATA, length: FRAME_BYTES });
    const body = new Uint8Array(FRAME_BYTES);
    const before = this.came;
    for (let at = 0; at < ms; at += LOOK_MS) {
      const link = this.peers.get('a')!.get('b')!;
      while (link.writable) link.send(head, body, null, false);
      for (const peers of this.peers.values()) peers.widen();
      await this.run(LOOK_MS);
    }
    return (1_000 * (this.came - before)) / ms;
  }

  stripes(from: 'a' | 'b'): number {
    return this.peers.get(from)!.get(from === 'a' ? 'b' : 'a')!.stripes;
  }
}

describe('a lane over a long way', () => {
  test('gets more stripes while it is in use, carries more, and nothing is lost for it', async () => {
    const world = await World.open({ weather: LONG });
    const before = await world.send(200);
    await world.send(3_000);
    const after = await world.send(1_000);
    expect(world.stripes('a')).toBe(16);
    expect(after).toBeGreaterThan(6 * before);
    expect(world.stripes('b'), 'nothing is sent that way').toBe(STRIPES);
    expect(world.lost).toEqual([]);
  });

  test('has as many at once when it is dialled anew', async () => {
    const world = await World.open({ weather: LONG });
    await world.send(3_000);
    world.peers.get('b')!.renew('a', 'of the test');
    await world.run(2_000);
    expect(world.stripes('a')).toBe(16);
  });

  test('gets them from its writer where only that one can dial', async () => {
    const world = await World.open({ weather: LONG, isHidden: true });
    expect(world.stripes('a')).toBe(STRIPES);
    await world.send(3_000);
    expect(world.stripes('a')).toBe(16);
    expect(world.lost).toEqual([]);
  });

  test('stays as it is where they can not be dialled, which is not tried without end', async () => {
    const world = await World.open({ weather: LONG });
    world.refuses = true;
    const before = world.dials;
    await world.send(3_000);
    expect([world.stripes('a'), world.lost]).toEqual([STRIPES, []]);
    expect(world.dials - before).toBe(STRIPES);
    world.refuses = false;
    await world.send(12_000);
    expect(world.stripes('a')).toBe(16);
  });
});

test.each([
  ['a short way', { weather: SHORT }],
  ['one host', { weather: LONG, hostOfB: 'host of a' }],
])('%s takes no more than it has', async (_, setting) => {
  const world = await World.open(setting);
  await world.send(2_000);
  expect([world.stripes('a'), world.stripes('b')]).toEqual([STRIPES, STRIPES]);
});
