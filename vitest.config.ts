import { defineConfig } from 'vitest/config';

/** Nothing in these depends on the time that anything takes: they may compete with one another. */
const PATIENT = [
  ...['collectives', 'deploy', 'diloco', 'executor', 'eyes', 'kernels', 'membership', 'ring', 'wire'].map(
    (folder) => `test/${folder}/**/*.test.ts`,
  ),
  'test/sim/{cuts,leaders,scale}.test.ts',
  'test/state/{census,schedule,service}.test.ts',
  'test/store/{file,leadership}.test.ts',
  'test/doctor/verdicts.test.ts',
  'test/notes/merge.test.ts',
  'test/examples/diloco-*.test.ts',
];

/** These mostly wait, for networks, processes and each other, and none of them for a time that another could spoil: two at a time. */
const WAITING = [
  'test/nat/**/*.test.ts',
  'test/chaos/**/*.test.ts',
  'test/browser/**/*.test.ts',
  'test/processes/kill.test.ts',
  'test/group/{calls,codecs,collectives,costs,lists,long-pipe,programs,ring,robust,stream}.test.ts',
  'test/store/conformance.test.ts',
  'test/conformance/**/*.test.ts',
  ...['cli', 'docs', 'launch', 'engine', 'benchmark', 'transport'].map((folder) => `test/${folder}/**/*.test.ts`),
  'test/fuzz/parsers.test.ts',
  'test/state/sync.test.ts',
  'test/doctor/hangs.test.ts',
  'test/notes/processes.test.ts',
  'test/security/{passes,tls}.test.ts',
];

const LIMITS = { testTimeout: 60_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: 'test-results.json' }]],
    projects: [
      { test: { name: 'patient', include: PATIENT, maxWorkers: 2, sequence: { groupOrder: 1 }, ...LIMITS } },
      { test: { name: 'waiting', include: WAITING, maxWorkers: 2, sequence: { groupOrder: 2 }, ...LIMITS } },
      {
        test: {
          name: 'timed',
          include: ['test/**/*.test.ts'],
          exclude: [...PATIENT, ...WAITING],
          // Two cores: process tests measure time-outs, so they must not compete with one another.
          fileParallelism: false,
          sequence: { groupOrder: 3 },
          ...LIMITS,
        },
      },
    ],
  },
});
