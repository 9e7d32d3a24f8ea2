import { describe, expect, test } from 'vitest';
import { VirtualClock } from '../../src/transport/clock.ts';
import { MemoryNetwork, type Weather } from '../../src/transport/memory.ts';
import type { Connection } from '../../src/transport/transport.ts';

const NOTHING = { onData: () => {}, onEnd: () => {}, onClose: () => {} };

/** Moves the clock between turns of the event loop, as promises of the transport settle in those. */
async function run(clock: VirtualClock, ms: number): Promise<void> {
  const end = clock.now() + ms;
  while (clock.now() < end) {
    clock.advance(Math.min(0.25, end - clock.now()));
    await Promise.resolve();
  }
}

interface World {
  readonly clock: VirtualClock;
  readonly network: MemoryNetwork;
  readonly near: Connection;
  readonly far: Connection;
}

async function connect(seed: number, weather: Partial<Weather>): Promise<World> {
  const clock = new VirtualClock();
  const network = new MemoryNetwork({ clock, seed, weather });
  const accepted: Connection[] = [];
  await network.transport('b').listen({ kind: 'memory', name: 'b' }, (connection) => accepted.push(connection));
  const dialled = network.transport('a').dial({ kind: 'memory', name: 'b' }, { timeoutMs: 1_000 });
  await run(clock, 100);
  return { clock, network, near: await dialled, far: accepted[0]! };
}

/** When which bytes arrived. */
async function trace(seed: number, weather: Partial<Weather>): Promise<string[]> {
  const { clock, near, far } = await connect(seed, weather);
  const lines: string[] = [];
  far.handler = {
    ...NOTHING,
    onData: (bytes) => lines.push(`${clock.now()} ${bytes.join()}`),
    onClose: (error) => lines.push(`${clock.now()} closed ${error?.message}`),
  };
  for (let index = 0; index < 40; index++) near.write(Uint8Array.of(index, index), Uint8Array.of(1, 2, 3), null);
  await run(clock, 500);
  return lines;
}

const ROUGH: Partial<Weather> = { latencyMs: 3, jitterMs: 9, maxPieceBytes: 7, windowBytes: 30, bytesPerMs: 4 };

describe('simulated network', () => {
  test('is the same at every run of a seed, and another for another seed', async () => {
    const first = await trace(7, ROUGH);
    expect(await trace(7, ROUGH)).toEqual(first);
    expect(await trace(8, ROUGH)).not.toEqual(first);
    expect(first.map((line) => line.split(' ')[1]).join()).toBe(
      Array.from({ length: 40 }, (_, index) => `${index},${index},1,2,3`).join(),
    );
  });

  test('takes the latency, and the time that the rate gives', async () => {
    const lines = await trace(1, { latencyMs: 20, bytesPerMs: 2, maxPieceBytes: 1_000 });
    const start = 100; // when `connect` is done
    const [first] = lines[0]!.split(' ');
    expect(Number(first)).toBeGreaterThanOrEqual(start + 20);
    // 200 bytes at 2 per millisecond.
    const [last] = lines.at(-1)!.split(' ');
    expect(Number(last)).toBeGreaterThanOrEqual(start + 20 + 100);
    expect(Number(last)).toBeLessThan(start + 20 + 100 + 2);
  });

  test('cuts connections at the chance it is given, at the same place for the same seed', async () => {
    const lines = await trace(3, { ...ROUGH, cutChance: 0.05 });
    expect(lines.at(-1)).toMatch(/closed/);
    expect(lines.length).toBeLessThan(40);
    expect(await trace(3, { ...ROUGH, cutChance: 0.05 })).toEqual(lines);
  });

  test('a partition holds bytes back, and dials run out of time, until it is healed', async () => {
    const { clock, network, near, far } = await connect(5, { latencyMs: 1 });
    let received = 0;
    far.handler = {
      ...NOTHING,
      onData: (bytes) => {
        received += bytes.length;
      },
    };
    network.partition((host) => host);
    near.write(new Uint8Array(1_000), null, null);
    const dial = network.transport('a').dial({ kind: 'memory', name: 'b' }, { timeoutMs: 50 });
    const refused = expect(dial).rejects.toThrow(/did not answer within 50 ms/);
    await run(clock, 200);
    await refused;
    expect(received).toBe(0);
    network.heal();
    await run(clock, 20);
    expect(received).toBe(1_000);
  });

  test('a dial that takes too long fails with the time it had', async () => {
    const clock = new VirtualClock();
    const network = new MemoryNetwork({ clock, seed: 1, weather: { latencyMs: 100 } });
    await network.transport('b').listen({ kind: 'memory', name: 'b' }, () => {});
    const dial = network.transport('a').dial({ kind: 'memory', name: 'b' }, { timeoutMs: 150 });
    const failed = expect(dial).rejects.toThrow(/within 150 ms/);
    await run(clock, 300);
    await failed;
    expect(network.openEnds).toBe(0);
  });

  test('cut closes every connection of a host', async () => {
    const { clock, network, near, far } = await connect(5, { latencyMs: 1 });
    const closed: string[] = [];
    near.handler = { ...NOTHING, onClose: () => closed.push('near') };
    far.handler = { ...NOTHING, onClose: () => closed.push('far') };
    network.cut('b');
    await run(clock, 10);
    expect(closed.sort()).toEqual(['far', 'near']);
    expect(network.openEnds).toBe(0);
  });
});

describe('virtual clock', () => {
  test('runs what is due in order of time, then of scheduling, and stands where it is told to', () => {
    const clock = new VirtualClock();
    const ran: string[] = [];
    clock.schedule(5, () => ran.push('b'));
    clock.schedule(1, () => {
      ran.push('a');
      clock.schedule(4, () => ran.push('c'));
    });
    const cancel = clock.schedule(2, () => ran.push('never'));
    clock.schedule(9, () => ran.push('d'));
    cancel();
    clock.advance(6);
    expect(ran).toEqual(['a', 'b', 'c']);
    expect(clock.now()).toBe(6);
    expect(clock.step()).toBe(true);
    expect([ran.at(-1), clock.now()]).toEqual(['d', 9]);
    expect(clock.step()).toBe(false);
  });
});
