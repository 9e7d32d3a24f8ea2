import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../../src/transport/clock.ts';
import { Random } from './random.ts';
import { Access, Cores, oneHost, type Prices, Thread, type Topology, wideAreaSites } from './scale/costs.ts';
import { Swarm } from './scale/swarm.ts';

const PRICES: Prices = {
  wakeSeconds: 20e-6,
  switchSeconds: 10e-6,
  frameSeconds: 10e-6,
  byteSeconds: 0.2e-9,
  coldByteSeconds: 0.1e-9,
  callSeconds: 20e-6,
  controlSeconds: 10e-6,
  handshakeSeconds: 1e-3,
};

const FREE = { wakeSeconds: 0, switchSeconds: 0 };

/** When each of these threads, with so many tasks of 2 ms, is done. */
function endsOf(cores: number, tasks: readonly number[]): number[] {
  const clock = new VirtualClock();
  const shared = new Cores(clock, cores);
  const ends: number[] = [];
  for (const [index, count] of tasks.entries()) {
    const thread = new Thread(shared, FREE);
    for (let task = 1; task <= count; task++)
      thread.run(() => {
        thread.charge(2e-3);
        ends[index] = clock.now() + thread.delayMs;
      });
  }
  while (clock.step()) {
    // until nothing is left to do
  }
  return ends;
}

describe('the processors of a simulation of scale', () => {
  it('give each thread a core of its own, or have them take turns', () => {
    expect(endsOf(2, [3, 3])).toEqual([6, 6]);
    expect(endsOf(1, [3, 3])).toEqual([10, 12]);
    expect(endsOf(2, [3, 3, 3])).toEqual([8, 8, 10]);
  });

  it('make a thread that slept pay for being woken, and one that is busy not', () => {
    const clock = new VirtualClock();
    const thread = new Thread(new Cores(clock, 1), { wakeSeconds: 1e-3, switchSeconds: 0 });
    const work = () => thread.charge(2e-3);
    thread.run(work);
    thread.run(work);
    while (clock.step()) {
      // until it sleeps
    }
    expect(thread.busyMs).toBe(5);
    clock.advance(100);
    thread.run(work);
    expect(thread.busyMs).toBe(8);
  });

  it('make a thread pay for a core that others wait for', () => {
    const clock = new VirtualClock();
    const cores = new Cores(clock, 1);
    const threads = [0, 1, 2].map(() => new Thread(cores, { wakeSeconds: 0, switchSeconds: 1e-3 }));
    for (const thread of threads) thread.run(() => thread.charge(2e-3));
    while (clock.step()) {
      // until all sleep
    }
    expect(threads.map(({ busyMs }) => busyMs)).toEqual([2, 3, 2]); // nobody waited yet, one, and nobody any more
  });

  it('do nothing more for a thread that was killed', () => {
    const clock = new VirtualClock();
    const thread = new Thread(new Cores(clock, 1), FREE);
    let done = 0;
    for (let task = 0; task < 3; task++)
      thread.run(() => {
        done += 1;
        thread.charge(1e-3);
      });
    clock.advance(0.5);
    thread.kill();
    clock.advance(100);
    expect(done).toBe(1);
  });
});

describe('the lines of a simulation of scale', () => {
  it('carry what leaves and what arrives one after the other, each at its own rate', () => {
    const access = new Access(1_000_000, 2_000_000);
    expect(access.leave(0, 1_000)).toBe(1);
    expect(access.leave(0, 1_000)).toBe(2);
    expect(access.leave(10, 1_000)).toBe(11);
    expect(access.arrive(5, 2_000)).toBe(5);
    expect(access.arrive(5, 2_000)).toBe(6);
    expect(access.arrive(20, 2_000)).toBe(20);
  });

  it('are the same for the same seed, and as far apart as they say', () => {
    const peers = 64;
    const topology = wideAreaSites(peers, new Random(5));
    const other = wideAreaSites(peers, new Random(5));
    expect(other.upRates).toEqual(topology.upRates);
    expect(new Set(topology.sites).size).toBe(4);
    for (let from = 0; from < peers; from++) {
      for (let to = 0; to < peers; to++) {
        const delay = topology.delayMs(from, to);
        expect(delay).toBe(topology.delayMs(to, from));
        expect(delay).toBe(other.delayMs(from, to));
        if (topology.sites[from] === topology.sites[to]) expect(delay).toBeLessThan(1);
        else expect(delay).toBeGreaterThanOrEqual(1);
        expect(delay).toBeLessThanOrEqual(100);
      }
    }
  });
});

const PEERS = 16;
const COUNT = 20_000;

function inputOf(peer: number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: COUNT }, (_, index) => (index % 7) + peer).buffer);
}

async function swarmOf(topology: Topology, seed: number): Promise<Swarm> {
  const swarm = await Swarm.open({ topology, prices: PRICES, seed, memory: 'own', segmentBytes: 4_096 });
  swarm.form(PEERS, 1);
  return swarm;
}

/** A whole life, and all its figures. */
async function figuresOf(topology: Topology, seed: number): Promise<unknown> {
  const swarm = await swarmOf(topology, seed);
  const bytes = COUNT * Float32Array.BYTES_PER_ELEMENT;
  const collective = swarm.allReduce(bytes);
  const steps = swarm.steps(bytes, 3);
  const recovery = swarm.kill(bytes, collective.ms / 4);
  const admission = swarm.admit(bytes);
  expect(recovery.begunAnew).toBe(true);
  expect(recovery.recoveredMs).toBeGreaterThan(recovery.decidedMs);
  expect(admission.admittedMs).toBeGreaterThan(admission.readyMs);
  return { collective, steps, recovery, admission };
}

describe('a simulation of scale', () => {
  it.each([
    ['on one host', oneHost(PEERS, 2)],
    ['over the world', wideAreaSites(PEERS, new Random(3))],
  ])('gives all of 16 peers %s the same sum', async (_, topology) => {
    const swarm = await swarmOf(topology, 1);
    const inputs = Array.from({ length: PEERS }, (_, peer) => inputOf(peer));
    const outputs = inputs.map((input) => new Uint8Array(input.length).fill(0xcc));
    const { ms, control } = swarm.allReduce(inputs[0]!.length, { inputs, outputs });
    const ranks = (PEERS * (PEERS - 1)) / 2;
    const expected = Float32Array.from({ length: COUNT }, (_, index) => PEERS * (index % 7) + ranks);
    for (const output of outputs) expect(Buffer.compare(output, new Uint8Array(expected.buffer))).toBe(0);
    expect(ms).toBeGreaterThan(0);
    // A barrier and a sum, each with a `done` from everybody and a `commit` to everybody, and signs of life.
    expect(control.messages).toBeGreaterThanOrEqual(4 * PEERS);
  });

  it('gives the same figures for the same seed, and others elsewhere', async () => {
    const one = await figuresOf(wideAreaSites(PEERS + 1, new Random(3)), 1);
    expect(await figuresOf(wideAreaSites(PEERS + 1, new Random(3)), 1)).toEqual(one);
    expect(await figuresOf(wideAreaSites(PEERS + 1, new Random(4)), 1)).not.toEqual(one);
  });
});
