/**
 * Scenarios that take steps of the protocol to which hardly any seed comes, so that every campaign takes all of them. Found, and
 * to be found again when the workload changes, by `npm run sim -- --find "call: frozen → failing" --seeds 3000`.
 */
import type { Scenario } from './scenario.ts';

const FAIR = {
  latencyMs: 0.2,
  jitterMs: 0,
  bytesPerMs: 1_000_000,
  maxPieceBytes: 3_000,
  windowBytes: 262_144,
  cutChance: 0,
};
const SMALL = { minWorldSize: 1, stripes: 1, segmentBytes: 4_096, heartbeatMs: 100, lostAfterMs: 300, ahead: 0 };

/** One pair of members, with a link on which hardly anything moves for longer than the others are patient. */
const TRICKLE = {
  at: 300,
  kind: 'slow',
  machine: 1,
  peer: 0,
  weather: { bytesPerMs: 7, latencyMs: 1 },
  forMs: 12_000,
} as const;
const TRICKLING = {
  machines: 4,
  ...SMALL,
  segmentBytes: 16_384,
  lostAfterMs: 700,
  callTimeoutMs: 25_000,
  weather: FAIR,
  stormMs: 12_000,
};

export const RARE: readonly { readonly step: string; readonly scenario: Scenario }[] = [
  {
    step: 'call: held → running',
    scenario: { seed: 40, ...TRICKLING, faults: [{ ...TRICKLE, direction: 'receives' }] },
  },
  {
    step: 'call: held → running',
    scenario: { seed: 25, ...TRICKLING, faults: [{ ...TRICKLE, direction: 'sends' }] },
  },
  {
    step: 'call: held → failing',
    scenario: {
      seed: 1102,
      machines: 2,
      ...SMALL,
      callTimeoutMs: 1_500,
      weather: { ...FAIR, latencyMs: 2, jitterMs: 10, bytesPerMs: 1_000, maxPieceBytes: 100_000, windowBytes: 16_384 },
      stormMs: 1_283,
      faults: [
        { at: 465, kind: 'block', one: 1, other: 2, forMs: 3_000 },
        { at: 783, kind: 'cancel', machine: 2 },
      ],
    },
  },
  {
    step: 'call: running → failing',
    scenario: {
      seed: 142,
      machines: 2,
      ...SMALL,
      lostAfterMs: 700,
      callTimeoutMs: 1_500,
      weather: { ...FAIR, bytesPerMs: 1_000 },
      stormMs: 539,
      faults: [
        { at: 241, kind: 'cut', one: 1, other: 0, midFrame: false },
        { at: 364, kind: 'partition', shape: 'partial', sideA: [0, 2], coordinatorOnA: false, bridge: 1, forMs: 1_200 },
      ],
    },
  },
  {
    step: 'call: frozen → failing',
    scenario: {
      seed: 1497,
      machines: 6,
      ...SMALL,
      lostAfterMs: 700,
      callTimeoutMs: 1_500,
      weather: { ...FAIR, jitterMs: 0.5, bytesPerMs: 1_000, windowBytes: 16_384 },
      stormMs: 341,
      faults: [
        { at: 67, kind: 'block', one: 3, other: 0, forMs: 150 },
        { at: 121, kind: 'churn', joins: 3, leaves: [2, 4, 5] },
      ],
    },
  },
  {
    step: 'run: recovering → vacant',
    scenario: {
      seed: 37,
      machines: 5,
      ...SMALL,
      callTimeoutMs: 600,
      weather: { ...FAIR, latencyMs: 15, jitterMs: 0.5, bytesPerMs: 10_000 },
      stormMs: 2_109,
      faults: [
        { at: 595, kind: 'stop', machine: 2, forMs: 1_200 },
        { at: 651, kind: 'coordinator-crash', restartMs: 39, keepsStore: true },
        { at: 849, kind: 'crash', machine: 0, silent: false, restartMs: 592 },
        { at: 1005, kind: 'coordinator-crash', restartMs: 730, keepsStore: false },
        { at: 1609, kind: 'crash', machine: 4, silent: false, restartMs: null },
      ],
    },
  },
  {
    step: 'run: recovering → steady',
    scenario: {
      seed: 111,
      machines: 2,
      ...SMALL,
      lostAfterMs: 700,
      callTimeoutMs: 600,
      weather: { ...FAIR, latencyMs: 2, maxPieceBytes: 20_000 },
      stormMs: 1_423,
      faults: [
        { at: 457, kind: 'partition', shape: 'asymmetric', sideA: [1], coordinatorOnA: true, bridge: 1, forMs: 1_200 },
        { at: 923, kind: 'coordinator-crash', restartMs: 254, keepsStore: true },
      ],
    },
  },
  {
    step: 'run: recovering → blank',
    scenario: {
      seed: 40,
      machines: 1,
      ...SMALL,
      segmentBytes: 16_384,
      callTimeoutMs: 600,
      weather: FAIR,
      stormMs: 513,
      faults: [{ at: 132, kind: 'coordinator-crash', restartMs: 699, keepsStore: true }],
    },
  },
  {
    step: 'run: blank → deciding',
    scenario: {
      seed: 289,
      machines: 1,
      ...SMALL,
      callTimeoutMs: 25_000,
      weather: { ...FAIR, latencyMs: 15, bytesPerMs: 10_000, windowBytes: 16_384 },
      stormMs: 344,
      faults: [{ at: 197, kind: 'coordinator-crash', restartMs: 579, keepsStore: false }],
    },
  },
];
