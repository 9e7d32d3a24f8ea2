/** Scenarios that once broke an invariant, as small as the shrinker could make them. */
import type { Scenario } from './scenario.ts';

const FAIR = { latencyMs: 2, jitterMs: 0.5, bytesPerMs: 1_000_000, maxPieceBytes: 20_000, windowBytes: 16_384 };
const SMALL = { minWorldSize: 1, stripes: 1, segmentBytes: 4_096, heartbeatMs: 100, lostAfterMs: 300, ahead: 0 };

export const REGRESSIONS: readonly { readonly title: string; readonly scenario: Scenario }[] = [
  {
    title: 'two runs of one name, because a visitor left before the first peer was let in',
    scenario: {
      seed: 296,
      machines: 2,
      ...SMALL,
      callTimeoutMs: 600,
      weather: { ...FAIR, latencyMs: 15, jitterMs: 0 },
      stormMs: 539,
      faults: [{ at: 39, kind: 'cut-control', machine: 1 }],
    },
  },
  {
    title: 'a collective committed although two members held it from different attempts',
    scenario: {
      seed: 1044,
      machines: 4,
      ...SMALL,
      callTimeoutMs: 1_500,
      weather: { ...FAIR, latencyMs: 0.2, jitterMs: 0, bytesPerMs: 10_000, maxPieceBytes: 3_000, cutChance: 0.002 },
      stormMs: 456,
      faults: [
        { at: 332, kind: 'crash', machine: 3, silent: true, restartMs: 361 },
        { at: 389, kind: 'cancel', machine: 1 },
      ],
    },
  },
  {
    title: 'a peer that leaves waits for ever for one whose machine is gone',
    scenario: {
      seed: 1044,
      machines: 2,
      ...SMALL,
      callTimeoutMs: 1_500,
      weather: { ...FAIR, latencyMs: 0.2, jitterMs: 0, bytesPerMs: 10_000, maxPieceBytes: 3_000 },
      stormMs: 456,
      faults: [
        { at: 332, kind: 'crash', machine: 3, silent: true, restartMs: 361 },
        { at: 350, kind: 'leave', machine: 2 },
      ],
    },
  },
  {
    title: 'a stripe that was lost while the others were dialled left a link that never worked again',
    scenario: {
      seed: 5460,
      machines: 3,
      ...SMALL,
      stripes: 3,
      segmentBytes: 16_384,
      callTimeoutMs: 4_000,
      weather: { ...FAIR, jitterMs: 10, bytesPerMs: 1_000, maxPieceBytes: 3_000, cutChance: 0.002 },
      stormMs: 654,
      faults: [{ at: 618, kind: 'crash', machine: 2, silent: false, restartMs: 196 }],
    },
  },
  {
    title: 'a member went back to a result of an earlier attempt, because it missed a decision',
    scenario: {
      seed: 21544,
      machines: 5,
      ...SMALL,
      callTimeoutMs: 4_000,
      weather: { ...FAIR, latencyMs: 15, bytesPerMs: 1_000, windowBytes: 262_144 },
      stormMs: 2_170,
      faults: [
        { at: 1533, kind: 'cut-control', machine: 3 },
        { at: 1670, kind: 'cut-control', machine: 2 },
      ],
    },
  },
  {
    title: 'a call that was cancelled while its peer was coming back to the coordinator',
    scenario: {
      seed: 70874,
      machines: 2,
      ...SMALL,
      segmentBytes: 16_384,
      callTimeoutMs: 25_000,
      weather: { ...FAIR, latencyMs: 0.2, jitterMs: 0, bytesPerMs: 1_000, maxPieceBytes: 3_000 },
      stormMs: 1_701,
      faults: [
        { at: 51, kind: 'coordinator-stop', forMs: 3_000 },
        { at: 1201, kind: 'cancel', machine: 2 },
      ],
    },
  },
  {
    title:
      'members that the coordinator had lost were taken back by its successor, while the one that was left had gone on',
    scenario: {
      seed: 108001,
      machines: 3,
      minWorldSize: 1,
      stripes: 1,
      segmentBytes: 16384,
      heartbeatMs: 100,
      lostAfterMs: 300,
      callTimeoutMs: 25000,
      ahead: 0,
      weather: {
        latencyMs: 0,
        jitterMs: 0,
        bytesPerMs: 1000000,
        maxPieceBytes: 100000,
        windowBytes: 16384,
        cutChance: 0,
      },
      stormMs: 915,
      faults: [
        { at: 136, kind: 'partition', shape: 'clean', sideA: [1, 2], coordinatorOnA: false, bridge: 2, forMs: 3000 },
        { at: 367, kind: 'stop', machine: 1, forMs: 500 },
        { at: 462, kind: 'coordinator-stop', forMs: 500 },
        { at: 753, kind: 'sluggish', machine: 0, costMs: 5, forMs: 3000 },
        { at: 782, kind: 'coordinator-crash', restartMs: 263, keepsStore: true },
      ],
    },
  },
  {
    title: 'a call with nothing to do did not see that another peer had announced something else',
    scenario: {
      seed: 103235,
      machines: 3,
      minWorldSize: 3,
      stripes: 2,
      segmentBytes: 16384,
      heartbeatMs: 100,
      lostAfterMs: 300,
      callTimeoutMs: 600,
      ahead: 0,
      weather: {
        latencyMs: 0.2,
        jitterMs: 0.5,
        bytesPerMs: 1000000,
        maxPieceBytes: 3000,
        windowBytes: 262144,
        cutChance: 0,
      },
      stormMs: 454,
      faults: [{ at: 348, kind: 'wrong', machine: 2 }],
    },
  },
  {
    title: 'a call that was cancelled while a new coordinator still waited for the other reports',
    scenario: {
      seed: 202988,
      machines: 5,
      minWorldSize: 1,
      stripes: 2,
      segmentBytes: 4096,
      heartbeatMs: 100,
      lostAfterMs: 300,
      callTimeoutMs: 25000,
      ahead: 0,
      weather: {
        latencyMs: 0.2,
        jitterMs: 0.5,
        bytesPerMs: 10000,
        maxPieceBytes: 3000,
        windowBytes: 16384,
        cutChance: 0,
      },
      stormMs: 1508,
      faults: [
        { at: 99, kind: 'join', count: 2 },
        { at: 170, kind: 'coordinator-crash', restartMs: 500, keepsStore: false },
        { at: 1015, kind: 'cancel', machine: 3 },
      ],
    },
  },
];
