/**
 * Groups on a simulated network with a slow way in it, in virtual time: real coordinator, engines and links. The ring leaves the
 * slow way, and results stay exact.
 */
import { describe, expect, test } from 'vitest';
import { Simulation, SLOW } from './simulation.ts';

const UNNAMED = ['', '', '', ''];

describe('a ring with a slow way', () => {
  test('leaves it after some boundaries, which makes collectives faster, and stays as it is then', async () => {
    const simulation = await Simulation.start(UNNAMED);
    simulation.slow([0, 1]);
    expect(await simulation.ring()).toEqual([0, 1, 2, 3]);
    const before = await simulation.step();
    await simulation.leave([0, 1]);
    const ring = await simulation.ring();
    const after = await simulation.step();
    expect(before.tookMs).toBeGreaterThan(3 * after.tookMs);
    const { epoch } = simulation.groups[0]!;
    for (let steps = 0; steps < 10; steps++) await simulation.step();
    expect(await simulation.ring()).toEqual(ring);
    expect(simulation.groups.map((group) => group.epoch)).toEqual([epoch, epoch, epoch, epoch]);
    const { links } = await simulation.drive(simulation.groups[0]!.status());
    const rateTo = (rank: number) =>
      links.find(({ peerId }) => peerId === simulation.groups[rank]!.peerId)?.bytesPerSecond ?? 0;
    expect(rateTo(1)).toBeLessThan(2 * 2 * SLOW * 1_000); // two stripes
    expect(rateTo(2)).toBeGreaterThan(4 * rateTo(1));
    expect(links.every(({ delayMs }) => delayMs !== null && delayMs >= 1 && delayMs < 100)).toBe(true);
  });

  test('gives exact results to all survivors when a member is lost on the new order', async () => {
    const simulation = await Simulation.start(UNNAMED);
    simulation.slow([1, 2], [2, 3]);
    await simulation.leave([1, 2], [2, 3]);
    const ring = await simulation.ring();
    const { reports } = await simulation.step(() => simulation.kill(3));
    expect(reports).toHaveLength(3);
    for (const report of reports) expect(report.contributors).toEqual(reports[0]!.contributors);
    expect(await simulation.ring()).toEqual(ring.filter((rank) => rank !== 3));
    await simulation.step();
  });

  test('goes on in the same order under a coordinator that was restarted', async () => {
    const simulation = await Simulation.start(UNNAMED);
    simulation.slow([0, 1]);
    await simulation.leave([0, 1]);
    const ring = await simulation.ring();
    await simulation.restartCoordinator();
    for (let steps = 0; steps < 5; steps++) await simulation.step();
    expect(await simulation.ring()).toEqual(ring);
    // It learns anew what the ways are worth.
    const way = [ring[0]!, ring[1]!] as const;
    simulation.slow([0, 1], way);
    await simulation.sleep(60_000);
    await simulation.leave([0, 1], way);
  });

  test('is left as it is where nobody may probe, and no traffic has shown another way', async () => {
    const simulation = await Simulation.start(UNNAMED, false);
    simulation.slow([0, 1]);
    for (let steps = 0; steps < 10; steps++) await simulation.step();
    expect(await simulation.ring()).toEqual([0, 1, 2, 3]);
  });
});

test('the ring leaves each site once, whoever came first', async () => {
  const simulation = await Simulation.start(['eu', 'us', 'eu', 'us', 'eu']);
  const sites = simulation.groups.map(({ members }, rank) => members[rank]!.site);
  const exits = (await simulation.ring()).filter((rank, at, ring) => sites[rank] !== sites[ring[(at + 1) % 5]!]);
  expect(exits).toHaveLength(2);
  await simulation.step();
});
