/** A peer is killed while the others' tensors are still being computed. */
import { describe, expect, test } from 'vitest';
import { Cluster } from '../harness/cluster.ts';

/** 6 MiB: several segments for every rank. */
const COUNT = 3 << 19;

describe.each(['restart', 'salvage'] as const)('with recovery: %s', (recovery) => {
  test('survivors hand out again what they compute anew, agree to the bit, and go on', async () => {
    await using cluster = await Cluster.start();
    const peers = await cluster.form(3);
    const ids = await Promise.all(peers.map((peer) => peer.run(({ state }) => state.group!.peerId)));
    const streams = peers.map((peer, rank) =>
      peer.run(
        async ({ skein, state, tell }, { count, rank, recovery }) => {
          const tensor = skein.sharedTensor('f32', count);
          const out = skein.sharedTensor('f32', count);
          const stream = state.group!.allReduceStream(tensor, { out, recovery, algorithm: 'ring', timeout: 20_000 });
          const fill = (start: number, end: number) => {
            for (let index = start; index < end; index++) tensor[index] = 10 ** rank + (index % 7);
            stream.ready(start, end - start);
          };
          const used = new Float32Array(count);
          const retries = new Set<number>();
          let handed = 0;
          state['goOn'] = () => fill(count / 2, count);
          fill(0, count / 2);
          for await (const { offset, length, retry } of stream) {
            used.set(out.subarray(offset, offset + length), offset);
            retries.add(retry);
            handed += length;
            if (handed >= count / 4) tell('has begun');
          }
          const report = await stream.report;
          const hash = (values: Float32Array) => {
            let sum = 0;
            for (const word of new Uint32Array(values.buffer)) sum = (Math.imul(sum, 31) + word) | 0;
            return sum;
          };
          return { report, retries: [...retries], out: hash(out), used: hash(used), ends: [out[0]!, out[count - 1]!] };
        },
        { count: COUNT, rank, recovery },
      ),
    );
    streams[2]!.catch(() => {}); // it dies
    await Promise.all(peers.map((peer) => peer.told('has begun')));
    await peers[2]!.kill();
    const survivors = [0, 1];
    // The loss is decided before the rest is there.
    await Promise.all(
      survivors.map((rank) =>
        peers[rank]!.run(async ({ state }) => {
          while (state.group!.worldSize > 2) await new Promise((resolve) => setTimeout(resolve, 5));
          (state['goOn'] as () => void)();
        }),
      ),
    );
    const results = await Promise.all(survivors.map((rank) => streams[rank]!));
    for (const { report, retries, out, used, ends } of results) {
      expect(report.contributors).toEqual([ids[0], ids[1]]);
      expect(report.retries).toBeGreaterThanOrEqual(1);
      expect(retries).toContain(0);
      expect(retries).toContain(report.retries);
      expect(used).toBe(out);
      expect(out).toBe(results[0]!.out);
      expect(report.ranges).toEqual(results[0]!.report.ranges);
      // What all had finished keeps the lost peer's part.
      const ofFirst = report.ranges[0]?.contributors ?? report.contributors;
      expect(ends[0]).toBe(ofFirst.length === 3 ? 111 : 11);
      expect(ends[1]).toBe(11 + 2 * ((COUNT - 1) % 7));
      if (recovery === 'restart') expect(report.ranges).toEqual([]);
      else expect(report.ranges.some(({ contributors }) => contributors.length === 3)).toBe(true);
    }
    const again = await Promise.all(
      survivors.map((rank) =>
        peers[rank]!.run(async ({ state }) => {
          const tensor = Float32Array.of(2);
          await state.group!.allReduce(tensor);
          return tensor[0];
        }),
      ),
    );
    expect(again).toEqual([4, 4]);
  });
});
