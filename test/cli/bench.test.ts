/** `skein bench` as users run it. */
import { describe, expect, test } from 'vitest';
import type { Explained } from '../../src/benchmark/explain.ts';
import type { Row } from '../../src/benchmark/plan.ts';
import { requireRivals } from '../harness/requirements.ts';
import { Command, skein } from './command.ts';

const SMALL = ['-b', '4K', '-e', '64K', '-f', '16', '-i', '1', '-w', '1'];

describe('skein bench', () => {
  test('measures, beside the libraries that people know', async (context) => {
    requireRivals(context);
    await using command = Command.skein(['bench', '-n', '2', ...SMALL, '--vs', 'gloo,openmpi', '--json']);
    expect(await command.ended, command.stderr).toBe(0);
    const { rows, worldSize, beside } = JSON.parse(command.stdout) as {
      rows: Row[];
      worldSize: number;
      beside: { name: string; rows: { bytes: number; seconds: number; cpuSecondsPerGb: number }[] }[];
    };
    expect(worldSize).toBe(2);
    expect(rows.map(({ bytes, count, outOfPlace }) => [bytes, count, outOfPlace.wrong])).toEqual([
      [4_096, 1_024, 0],
      [65_536, 16_384, 0],
    ]);
    expect(beside.map(({ name, rows: others }) => [name, others.map(({ bytes }) => bytes)])).toEqual([
      ['gloo', [4_096, 65_536]],
      ['openmpi', [4_096, 65_536]],
    ]);
    for (const { seconds, cpuSecondsPerGb } of beside.flatMap((one) => one.rows)) {
      expect(seconds).toBeGreaterThan(0);
      expect(cpuSecondsPerGb).toBeGreaterThan(0);
    }
  });

  test('is one peer of a launch where it is started by one, and rank 0 prints the table', async () => {
    await using command = Command.skein(['launch', '-n', '2', '--', process.execPath, ...skein('bench', ...SMALL)]);
    expect(await command.ended, command.stderr).toBe(0);
    expect(command.stdout.match(/│ 65536 +│ 16384 +│ f32/g)).toHaveLength(1);
    expect(command.stdout).toContain('#wrong');
  });

  test('explains what `auto` chooses: each algorithm as it was measured, beside what the model predicts', async () => {
    const SIZES = ['-b', '4K', '-e', '1M', '-f', '256', '-i', '1', '-w', '0'];
    await using command = Command.skein(['bench', '-n', '3', ...SIZES, '--explain', '--json']);
    expect(await command.ended, command.stderr).toBe(0);
    const { worldSize, explained } = JSON.parse(command.stdout) as { worldSize: number; explained: Explained[] };
    expect(worldSize).toBe(3);
    expect(explained.map(({ bytes }) => bytes)).toEqual([4_096, 2 ** 20]);
    for (const { chosen, algorithms } of explained) {
      expect(algorithms.map(({ algorithm }) => algorithm)).toEqual(
        expect.arrayContaining(['ring', 'tree', 'doubling']),
      );
      expect(algorithms[0]!.algorithm).toBe(chosen);
      const predicted = algorithms.map(({ predictedSeconds }) => predictedSeconds);
      expect(predicted).toEqual([...predicted].sort((left, right) => left - right));
      for (const { seconds, predictedSeconds } of algorithms) {
        expect(seconds).toBeGreaterThan(0);
        expect(predictedSeconds).toBeGreaterThan(0);
      }
    }
    const largest = ({ algorithms }: Explained) =>
      Math.max(...algorithms.map(({ predictedSeconds }) => predictedSeconds));
    expect(largest(explained[1]!)).toBeGreaterThan(largest(explained[0]!));
  });

  test('explains in a table, also as peers of a launch, of other collectives too', async () => {
    const program = skein('bench', ...SMALL, '-c', 'broadcast', '--explain');
    await using command = Command.skein(['launch', '-n', '2', '--', process.execPath, ...program]);
    expect(await command.ended, command.stderr).toBe(0);
    expect(command.stdout.match(/│ 64 KiB +│ (ring|tree) +│ +[\d.]+ ms +│ +[\d.]+ ms +│ auto/g)).toHaveLength(1);
  });

  test.each([
    [['--vs', 'nccl'], '`--vs` knows gloo, openmpi, raw, raw-unix, not "nccl"'],
    [['--vs', 'gloo', '--op', 'max'], '`--vs` compares all-reduces that sum f32'],
    [['-b', '1M', '-e', '4K'], '`--begin` is larger than `--end`'],
    [['-b', 'much'], 'Give a size in bytes'],
    [['-f', '1'], 'Give a number above 1'],
    [['--explain', '--algorithm', 'ring'], '`--explain` tells why `auto` chooses'],
  ])('%j ends with 2 and says what is wrong', async (args, complaint) => {
    await using command = Command.skein(['bench', '-n', '2', ...args]);
    expect(await command.ended).toBe(2);
    expect(command.stderr).toContain(complaint);
  });
});
