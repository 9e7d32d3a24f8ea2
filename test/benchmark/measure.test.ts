/** The benchmark's own arithmetic: what it calls wrong is wrong, and nothing else is. */
import { describe, expect, test } from 'vitest';
import { measure } from '../../src/benchmark/measure.ts';
import { BENCHED, BENCHED_OPS, busFactor, type Plan, type Row, sizesBetween } from '../../src/benchmark/plan.ts';
import { type Benchable, Work } from '../../src/benchmark/work.ts';
import { DTYPES } from '../../src/tensor.ts';
import { Members } from '../group/members.ts';

const PLAN: Plan = {
  collective: 'allReduce',
  dtype: 'f32',
  op: 'sum',
  codec: 'f32',
  algorithm: 'auto',
  consistency: 'commit',
  sizes: [1_000, 70_000],
  iterations: 1,
  warmups: 0,
  warmUpMs: 0,
  explains: false,
};

async function rowsOf(members: Members, plan: Plan): Promise<Row[]> {
  const rows = await members.all(async (group) => {
    const own: Row[] = [];
    // The members are of the package as it was built, whose types the compiler takes for others.
    await measure(group as unknown as Benchable, plan, (row) => own.push(row));
    return own;
  });
  return rows[0]!;
}

describe('a benchmark', () => {
  test('of every collective, dtype and op finds nothing wrong', async () => {
    await using members = await Members.form(3, { engine: 'inline' });
    const plans: Plan[] = [
      ...BENCHED.map((collective) => ({ ...PLAN, collective })),
      ...DTYPES.map((dtype) => ({ ...PLAN, dtype, sizes: [1_000] })),
      ...BENCHED_OPS.flatMap((op) =>
        (['f32', 'i8', 'u64'] as const).map((dtype) => ({ ...PLAN, op, dtype, sizes: [1_000] })),
      ),
    ];
    for (const plan of plans) {
      const rows = await rowsOf(members, plan);
      expect(rows).toHaveLength(plan.sizes.length);
      for (const [index, row] of rows.entries()) {
        const name = `${plan.collective} ${plan.dtype} ${plan.op}`;
        expect({ name, wrong: row.outOfPlace.wrong + (row.inPlace?.wrong ?? 0) }).toEqual({ name, wrong: 0 });
        expect(row.bytes).toBeGreaterThan(plan.sizes[index]! - 3 * 8);
        expect(row.bytes).toBeLessThanOrEqual(plan.sizes[index]!);
        expect(row.outOfPlace.seconds).toBeGreaterThan(0);
      }
    }
  });

  test('tells the error of a codec that drops bits, and what `auto` stood for', async () => {
    await using members = await Members.form(2, { engine: 'inline' });
    const [row] = await rowsOf(members, { ...PLAN, codec: 'int4', sizes: [70_000] });
    expect(row?.error).toBeGreaterThan(0);
    expect(row?.error).toBeLessThan(0.2);
    expect(row?.algorithm).toBe('direct');
  });

  test('counts what is wrong: here nothing was computed at all', () => {
    const idle = { rank: 1, worldSize: 2 } as Benchable; // nothing of it is called
    // Of the sums 0+1, 1+2, 2+3, 3+4 and 4+0 none is 0, which the result still is.
    expect(new Work(idle, PLAN, 4_000).wrong(false)).toBe(1_000);
    // In place there still is the input: where the other rank's is 0 it is right.
    expect(new Work(idle, PLAN, 4_000).wrong(true)).toBe(800);
    expect(new Work({ ...idle, rank: 0 }, { ...PLAN, collective: 'broadcast' }, 4_000).wrong(false)).toBe(0);
  });

  test('goes through the sizes, and knows what a link carries', () => {
    expect(sizesBetween(4_096, 70_000, 4)).toEqual([4_096, 16_384, 65_536]);
    expect(busFactor('allReduce', 4)).toBe(1.5);
    expect(busFactor('allGather', 4)).toBe(0.75);
    expect(busFactor('broadcast', 4)).toBe(1);
  });
});
