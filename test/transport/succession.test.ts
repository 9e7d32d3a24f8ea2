/** Lanes of a link that succeed one another under traffic, on a simulated network: at every moment, with cuts at every moment. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { VirtualClock } from '../../src/transport/clock.ts';
import { acceptHandshake, dialHandshake } from '../../src/transport/handshake.ts';
import { type DialledLane, type LaneName, Link } from '../../src/transport/link.ts';
import { MemoryNetwork, type Weather } from '../../src/transport/memory.ts';
import type { Connection } from '../../src/transport/transport.ts';
import {
  emptyHeader,
  FRAME_DATA,
  FRAME_LAST,
  FRAME_TAKE,
  type FrameHeader,
  type FrameSink,
  HEADER_BYTES,
  writeHeader,
} from '../../src/wire/frame.ts';

const KEY = new Uint8Array(32).fill(7);
const REDIAL_MS = 3;
const NOTHING = new Uint8Array(0);

/** A frame's place: its number, and whether it was sent in order. */
type Place = Pick<FrameHeader, 'sequence' | 'chunk'>;

function bytesOf(sequence: number, at: number): number {
  return (sequence * 31 + at * 7) & 0xff;
}

/** Collects whole frames, whose payloads must be what was sent. */
class Collector implements FrameSink {
  readonly #frames: Place[];
  #header: FrameHeader = emptyHeader();
  #at = 0;

  constructor(frames: Place[]) {
    this.#frames = frames;
  }

  onFrame(header: FrameHeader): string | null {
    this.#header = { ...header };
    this.#at = 0;
    return header.type === FRAME_DATA ? null : `type ${header.type}`;
  }

  onPayload(bytes: Uint8Array, start: number, end: number): string | null {
    for (let at = start; at < end; at++) {
      if (bytes[at] !== bytesOf(this.#header.sequence, this.#at++)) throw new Error('a payload is not what was sent');
    }
    return null;
  }

  onFrameEnd(): string | null {
    if (this.#at !== this.#header.length) throw new Error('a payload is too short');
    this.#frames.push({ sequence: this.#header.sequence, chunk: this.#header.chunk });
    return null;
  }

  close(): void {}
}

interface Setting {
  readonly seed: number;
  readonly stripes: number;
  readonly weather?: Partial<Weather>;
}

/** One peer: what it sent while it could, what came, and which lanes it was told to be lost. */
class End {
  readonly name: string;
  readonly link: Link;
  readonly sent: Place[] = [];
  readonly came: Place[] = [];
  readonly lost: LaneName[] = [];
  adopted = 0;

  constructor(name: string, onLost: () => void) {
    this.name = name;
    this.link = new Link({
      openSink: () => new Collector(this.came),
      takeCarry: () => new Uint8Array(HEADER_BYTES),
      giveCarry: () => {},
      onUp: () => {},
      onFlushed: () => {},
      onLaneClosed: (lane) => {
        this.lost.push(lane);
        onLost();
      },
    });
  }

  send(isOrdered: boolean, length: number): void {
    if (!this.link.up) return;
    const sequence = this.sent.length;
    const place = { sequence, chunk: isOrdered ? 1 : 0 };
    const head = new Uint8Array(HEADER_BYTES);
    writeHeader(new DataView(head.buffer), 0, { ...emptyHeader(), ...place, type: FRAME_DATA, length });
    this.sent.push(place);
    const body = Uint8Array.from({ length }, (_, at) => bytesOf(sequence, at));
    this.link.send(head, body, null, isOrdered);
  }
}

class World {
  readonly clock: VirtualClock = new VirtualClock();
  readonly network: MemoryNetwork;
  readonly ends: readonly [End, End];
  /** Of all lanes, in the order in which they were dialled: both sides' connections. */
  readonly lanes: { readonly by: End; readonly near: Connection[]; readonly far: Connection[] }[] = [];
  readonly #stripes: number;
  #drawn: number;

  private constructor({ seed, stripes, weather = {} }: Setting) {
    this.network = new MemoryNetwork({ clock: this.clock, seed, weather });
    this.#stripes = stripes;
    this.#drawn = seed;
    const end = (name: string) => new End(name, () => this.clock.schedule(REDIAL_MS, () => this.#repair()));
    this.ends = [end('a'), end('b')];
  }

  /** Two peers, each of which receives from the other. */
  static async open(setting: Setting): Promise<World> {
    const world = new World(setting);
    for (const own of world.ends) {
      await world.network
        .transport(own.name)
        .listen({ kind: 'memory', name: own.name }, (connection) => void world.#accept(own, connection));
    }
    world.#repair();
    await world.rest();
    return world;
  }

  /** Uniform below `bound`; of the test, not of the network. */
  draw(bound: number): number {
    this.#drawn = (Math.imul(this.#drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#drawn / 2 ** 32) * bound);
  }

  #other(end: End): End {
    return end === this.ends[0] ? this.ends[1] : this.ends[0];
  }

  readonly #world = {
    clock: this.clock,
    random: (length: number) => Uint8Array.from({ length }, () => this.draw(256)),
  };

  async #accept(own: End, connection: Connection): Promise<void> {
    const identity = { run: 'run', peerId: own.name };
    try {
      const { session, lane, rest } = await acceptHandshake(connection, identity, async () => KEY, this.#world);
      this.lanes[session - 1]!.far.push(connection);
      if (lane === 'successor') own.link.acceptSuccessor(connection, session, rest);
      else if (lane === 'inbound-more') own.link.acceptMore(lane, connection, session, rest);
      else own.link.accept(connection, session, rest);
    } catch {
      // It was cut meanwhile.
    }
  }

  /** Dials a lane to receive on; whether it is kept. */
  async dial(own: End, lane: DialledLane): Promise<boolean> {
    const near: Connection[] = [];
    const session = this.lanes.push({ by: own, near, far: [] });
    try {
      const stripes = await Promise.all(
        Array.from({ length: this.#stripes }, () => this.#open(own, lane, session, near)),
      );
      if (lane === 'inbound') return own.link.dialled(stripes, session);
      return own.link.prepare(stripes, session, { onAdopted: () => own.adopted++, onLost: () => {} });
    } catch {
      for (const connection of near) connection.destroy();
      return false;
    }
  }

  async #open(own: End, lane: DialledLane, session: number, near: Connection[]): Promise<Connection> {
    const to = this.#other(own).name;
    const address = { kind: 'memory', name: to } as const;
    const connection = await this.network.transport(own.name).dial(address, { timeoutMs: 1_000 });
    near.push(connection);
    await dialHandshake(connection, { run: 'run', from: own.name, to, session, lane, key: KEY }, this.#world);
    return connection;
  }

  /** Dials one more stripe of the lane that an end receives on. */
  async widen(own: End): Promise<void> {
    const session = own.link.dialledLane('inbound')?.session;
    if (session === undefined) return;
    const { near } = this.lanes[session - 1]!;
    const dial = () => this.#open(own, 'inbound-more', session, near);
    await own.link.addStripe('inbound', session, dial).catch(() => {}); // it was cut meanwhile
  }

  readonly #dialling: Set<End> = new Set();

  /** Dials what is not received on, until it is. */
  #repair(): void {
    for (const own of this.ends) {
      if (own.link.receives || this.#dialling.has(own)) continue;
      this.#dialling.add(own);
      void this.dial(own, 'inbound').then((isKept) => {
        this.#dialling.delete(own);
        if (!isKept) this.clock.schedule(REDIAL_MS, () => this.#repair());
      });
    }
  }

  /** Frames of all sizes from both ends, in the next so many milliseconds. */
  talk(frames: number, ms: number): void {
    for (const end of this.ends) {
      for (let frame = 0; frame < frames; frame++) {
        const [isOrdered, length] = [this.draw(2) === 0, this.draw(3) === 0 ? this.draw(400) : this.draw(20)];
        this.clock.schedule(this.draw(ms * 100) / 100, () => end.send(isOrdered, length));
      }
    }
  }

  /** Runs until nothing is to come; `before`: with the number of each event. @returns how many there were */
  async rest(before: (event: number) => void = () => {}): Promise<number> {
    for (let event = 0; ; event++) {
      before(event);
      for (let turn = 0; turn < 12; turn++) await null;
      if (!this.clock.step()) return event;
      if (event > 100_000) throw new Error('it does not come to rest');
    }
  }

  /** What was promised, in both directions, whatever happened. @returns whether lanes were lost, as far as the ends were told */
  judge(): boolean {
    for (const from of this.ends) {
      const to = this.#other(from);
      const came = to.came.map(({ sequence }) => sequence);
      expect(new Set(came).size, 'nothing comes twice').toBe(came.length);
      const inOrder = to.came.filter(({ chunk }) => chunk === 1).map(({ sequence }) => sequence);
      expect(inOrder, 'what has an order keeps it').toEqual([...inOrder].sort((left, right) => left - right));
      if (from.lost.includes('outbound') || to.lost.includes('inbound')) continue;
      expect(came.sort((left, right) => left - right)).toEqual(from.sent.map(({ sequence }) => sequence));
    }
    return this.ends.some(({ lost }) => lost.length > 0);
  }

  /** Both lanes work, and nothing is left of others. */
  async expectSound(): Promise<void> {
    for (const { link } of this.ends) link.adopt();
    await this.rest();
    const counts = this.ends.map(({ came }) => came.length);
    for (const end of this.ends) {
      expect([end.link.up, end.link.receives]).toEqual([true, true]);
      end.send(true, 5);
    }
    await this.rest();
    expect(this.ends.map(({ came }) => came.length)).toEqual(counts.map((count) => count + 1));
    const stripes = this.ends.map(({ link }) => link.dialledLane('inbound')?.stripes ?? 0);
    expect(Math.min(...stripes)).toBeGreaterThanOrEqual(this.#stripes);
    expect(this.network.openEnds, 'two lanes, two ends').toBe(2 * (stripes[0]! + stripes[1]!));
  }
}

/** Slow enough for several frames to be under way at any moment, in pieces that end anywhere. */
const SLOW: Partial<Weather> = { latencyMs: 1, jitterMs: 2, maxPieceBytes: 60, windowBytes: 200, bytesPerMs: 100 };
const SMALL = { frames: 8, ms: 5 };

/** Moments that are tried, of more in a world with several stripes. */
const MOMENTS = 120;
/** When the lane is taken, where that is not what varies. */
const TAKEN = 8;

async function prepared(setting: Setting): Promise<World> {
  const world = await World.open(setting);
  for (const end of world.ends) expect(await settled(world, world.dial(end, 'successor'))).toBe(true);
  await world.rest();
  return world;
}

async function settled<T>(world: World, promise: Promise<T>): Promise<T> {
  await world.rest();
  return promise;
}

/** Ends a connection of a lane abruptly, with what is on its way. */
function cut(world: World, lane: number, side: 'near' | 'far'): void {
  const connections = world.lanes[lane]![side];
  connections[world.draw(connections.length)]?.destroy();
}

/** Of a world whose ends have two lanes, and a successor for each. */
const OLD = 0;
const NEW = 2;

describe('a lane and its successor', () => {
  test.each([1, 2])(
    'nothing is lost, doubled or out of order, whenever both ends take it: %i stripes',
    async (stripes) => {
      const setting = { seed: 11, stripes, weather: SLOW };
      let events = 1;
      for (let moment = 0; moment < events; moment++) {
        const world = await prepared(setting);
        world.talk(SMALL.frames, SMALL.ms);
        events = await world.rest((event) => {
          // First one end, then both at once.
          if (event === moment) world.ends[0].link.adopt();
          if (event === moment + (moment % 3)) world.ends[1].link.adopt();
        });
        expect(world.judge(), `moment ${moment}`).toBe(false);
        expect(world.ends.map(({ adopted }) => adopted)).toEqual([1, 1]);
        await world.expectSound();
        events = Math.min(events, MOMENTS);
      }
      expect(events).toBeGreaterThan(50);
    },
  );

  test('whenever a stripe is added to a lane that is about to be left', async () => {
    let added = 0;
    let events = 1;
    for (let moment = 0; moment < events; moment++) {
      const world = await prepared({ seed: 17, stripes: 2, weather: SLOW });
      world.talk(SMALL.frames, SMALL.ms);
      events = await world.rest((event) => {
        if (event === moment) void world.widen(world.ends[0]);
        if (event === TAKEN + Math.floor(moment / 2)) for (const { link } of world.ends) link.adopt();
      });
      expect(world.judge(), `moment ${moment}`).toBe(false);
      expect(world.ends.map(({ adopted }) => adopted)).toEqual([1, 1]);
      // Added before it was left, or not dialled, as that came before.
      if (world.lanes[OLD]!.far.length > 2) added += 1;
      await world.expectSound();
      events = Math.min(events, MOMENTS);
    }
    expect(added).toBeGreaterThan(10);
    expect(added).toBeLessThan(events);
  });

  test.each([
    ['the lane', OLD, 'near'],
    ['the lane', OLD, 'far'],
    ['the successor', NEW, 'near'],
    ['the successor', NEW, 'far'],
  ] as const)('%s (lane %i) may break at any moment, at its %s end: what is lost is told', async (_, lane, side) => {
    let told = 0;
    let events = 1;
    for (let moment = 0; moment < events; moment++) {
      const world = await prepared({ seed: 23, stripes: 2, weather: SLOW });
      world.talk(SMALL.frames, SMALL.ms);
      events = await world.rest((event) => {
        if (event === TAKEN) world.ends[0].link.adopt();
        if (event === moment) cut(world, lane, side);
      });
      if (world.judge()) told += 1;
      if (lane === NEW && moment < TAKEN)
        expect(
          world.ends.map(({ lost }) => lost),
          'nobody has used it',
        ).toEqual([[], []]);
      await world.expectSound();
      events = Math.min(events, MOMENTS);
    }
    expect(told).toBeGreaterThan(0);
    expect(told).toBeLessThan(events);
  });

  test('any number of lanes one after another, in any weather, with cuts', async () => {
    const weather = fc.record({
      latencyMs: fc.integer({ min: 0, max: 5 }),
      jitterMs: fc.integer({ min: 0, max: 20 }),
      maxPieceBytes: fc.integer({ min: 1, max: 300 }),
      windowBytes: fc.integer({ min: 50, max: 2_000 }),
      bytesPerMs: fc.constantFrom(10, 100, Number.POSITIVE_INFINITY),
    });
    const scenario = fc.record({
      seed: fc.integer({ min: 0, max: 2 ** 31 }),
      stripes: fc.integer({ min: 1, max: 3 }),
      weather,
      cuts: fc.integer({ min: 0, max: 4 }),
    });
    const play = async ({ cuts, ...setting }: Setting & { readonly cuts: number }) => {
      const world = await World.open(setting);
      world.talk(40, 120);
      for (const end of world.ends) {
        let isDialling = false;
        const dial = async () => {
          if (isDialling) return;
          isDialling = true;
          await world.dial(end, 'successor');
          isDialling = false;
        };
        for (let round = 0; round < 4; round++) {
          world.clock.schedule(world.draw(120), () => void dial());
          world.clock.schedule(world.draw(150), () => end.link.adopt());
          world.clock.schedule(world.draw(150), () => void world.widen(end));
        }
      }
      for (let one = 0; one < cuts; one++)
        world.clock.schedule(world.draw(150), () =>
          cut(world, world.draw(world.lanes.length), world.draw(2) === 0 ? 'near' : 'far'),
        );
      await world.rest();
      const isLost = world.judge();
      if (cuts === 0) expect(isLost).toBe(false);
      await world.expectSound();
    };
    await fc.assert(fc.asyncProperty(scenario, play), { numRuns: 30 });
  });
});

/** What a peer could do that does not keep to the protocol. */
describe('a lane that is not to be', () => {
  function frame(type: number): Uint8Array {
    const head = new Uint8Array(HEADER_BYTES);
    writeHeader(new DataView(head.buffer), 0, { ...emptyHeader(), type });
    return head;
  }

  /** What becomes of a connection of one side when the other side writes such a frame on its end of it. */
  async function afterFrame(lane: number, writer: 'near' | 'far', type: number): Promise<boolean> {
    const world = await prepared({ seed: 5, stripes: 1 });
    const { near, far } = world.lanes[lane]!;
    const [from, to] = writer === 'near' ? [near[0]!, far[0]!] : [far[0]!, near[0]!];
    from.write(frame(type), null, null);
    await world.rest();
    return to.closed;
  }

  test('what comes on a successor before it was taken closes it', async () => {
    expect(await afterFrame(NEW, 'far', FRAME_DATA)).toBe(true);
  });

  test('a lane in use can not be taken, nor left by who does not write to it', async () => {
    expect(await afterFrame(OLD, 'near', FRAME_TAKE)).toBe(true);
    expect(await afterFrame(OLD, 'far', FRAME_TAKE)).toBe(true);
    expect(await afterFrame(OLD, 'near', FRAME_LAST)).toBe(true);
  });

  test('there is one successor at a time, and none without a lane', async () => {
    const world = await prepared({ seed: 5, stripes: 1 });
    const [own] = world.ends;
    expect(await settled(world, world.dial(own, 'successor'))).toBe(true);
    expect(world.lanes[NEW]!.near[0]!.closed, 'the earlier one').toBe(true);
    await world.expectSound();
    const link = new Link({ ...EVENTS });
    expect(link.prepare([world.lanes[NEW]!.near[0]!], 9, { onAdopted: () => {}, onLost: () => {} })).toBe(false);
  });
});

const EVENTS = {
  openSink: () => new Collector([]),
  takeCarry: () => NOTHING,
  giveCarry: () => {},
  onUp: () => {},
  onFlushed: () => {},
  onLaneClosed: () => {},
};
