import { defineConfig } from 'vitest/config';
import { LongestFirst } from './test/harness/longest-first.ts';

/** These compute, and nothing in them depends on the time that it takes: they leave the cores to others. */
const PATIENT = [
  ...['collectives', 'deploy', 'executor', 'eyes', 'kernels', 'membership', 'ring', 'sim', 'wire'].map(
    (folder) => `test/${folder}/**/*.test.ts`,
  ),
  'test/state/{census,schedule,service}.test.ts',
  'test/store/{leadership,ledger}.test.ts',
  'test/security/{lobby,refusals}.test.ts',
  'test/snapshot/folder.test.ts',
  'test/doctor/verdicts.test.ts',
  'test/notes/merge.test.ts',
  'test/examples/mnist.test.ts',
  'test/staging.test.ts',
];

/** These mostly wait, for networks, processes and each other, and none of them for a time that another could spoil. */
const WAITING = [
  'test/nat/**/*.test.ts',
  'test/chaos/**/*.test.ts',
  'test/browser/**/*.test.ts',
  'test/processes/{kill,robust,stream,webrtc}.test.ts',
  'test/group/{calls,codecs,collectives,costs,lists,long-pipe,programs,ring,robust,stream,trace}.test.ts',
  'test/store/{conformance,file}.test.ts',
  'test/conformance/**/*.test.ts',
  ...['cli', 'diloco', 'docs', 'launch', 'engine', 'benchmark', 'transport'].map(
    (folder) => `test/${folder}/**/*.test.ts`,
  ),
  'test/fuzz/parsers.test.ts',
  'test/state/{kill,sync}.test.ts',
  'test/snapshot/{group,processes}.test.ts',
  'test/doctor/hangs.test.ts',
  'test/notes/processes.test.ts',
  'test/tidy.test.ts',
  'test/examples/{browser,diloco-*}.test.ts',
  'test/security/{encryption,https,join,passes,tls}.test.ts',
];

const LIMITS = { testTimeout: 60_000, hookTimeout: 60_000 };

/** On two cores: of three files one or two wait for something at any time. */
const TOGETHER = { maxWorkers: 3, sequence: { groupOrder: 1 } };

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: 'test-results.json' }]],
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: 'patient',
          include: PATIENT,
          ...TOGETHER,
          // None leaves anything behind in its thread, and a new one for each file would be most of what many of them take.
          pool: 'threads',
          isolate: false,
          setupFiles: ['test/harness/yield-to-others.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      { test: { name: 'waiting', include: WAITING, ...TOGETHER, ...LIMITS } },
      {
        test: {
          name: 'timed',
          include: ['test/**/*.test.ts'],
          exclude: [...PATIENT, ...WAITING],
          // Two cores: process tests measure time-outs, so they must not compete with one another.
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          ...LIMITS,
        },
      },
    ],
  },
});
