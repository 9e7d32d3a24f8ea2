import { defineConfig } from 'vitest/config';

/** Nothing in these depends on the time that anything takes: they may compete with one another. */
const PATIENT = [
  ...['collectives', 'diloco', 'executor', 'kernels', 'wire', 'membership'].map(
    (folder) => `test/${folder}/**/*.test.ts`,
  ),
  'test/examples/diloco-*.test.ts',
];

const LIMITS = { testTimeout: 60_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: 'test-results.json' }]],
    projects: [
      { test: { name: 'patient', include: PATIENT, maxWorkers: 2, sequence: { groupOrder: 1 }, ...LIMITS } },
      {
        test: {
          name: 'timed',
          include: ['test/**/*.test.ts'],
          exclude: PATIENT,
          // Two cores: process tests measure time-outs, so they must not compete with one another.
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          ...LIMITS,
        },
      },
    ],
  },
});
