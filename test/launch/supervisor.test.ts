/** What a launch does when processes end, signals come and time passes, without a process, a signal or a clock. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exitCode } from '../../src/launch/exit.ts';
import { restartDelay, type StopSignal } from '../../src/launch/supervisor.ts';
import { failed, killed, killsIn, Play, POLICY, SUCCESS, textIn } from './play.ts';

const STOP_SIGNALS: readonly StopSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'];

describe('without restarts', () => {
  it('starts every process once', () => {
    const play = new Play();
    expect([...play.running]).toEqual([0, 1, 2]);
    expect(play.starts).toEqual([1, 1, 1]);
  });

  it('ends with 0 when the last process has ended with 0, and says nothing', () => {
    const play = new Play();
    expect(play.exited(2, SUCCESS)).toEqual([]);
    expect(play.exited(0, SUCCESS)).toEqual([]);
    expect(play.exited(1, SUCCESS)).toEqual([{ type: 'end', exitCode: 0 }]);
  });

  it('stops the others at the first failure, and ends with its exit code, whatever theirs are', () => {
    const play = new Play();
    const effects = play.exited(1, failed(7));
    expect(killsIn(effects)).toEqual({ 0: 'SIGTERM', 2: 'SIGTERM' });
    expect(effects.at(-1)).toEqual({ type: 'start-grace', delayMs: POLICY.graceMs });
    expect(textIn(effects)).toBe('peer 1 ended with exit code 7: stopping the others');
    expect(play.exited(0, killed('SIGTERM'))).toEqual([]);
    expect(play.exited(2, failed(3))).toEqual([{ type: 'end', exitCode: 7 }]);
  });

  it('ends with 128 + the number of the signal that killed the first process to fail', () => {
    const play = new Play();
    expect(textIn(play.exited(2, killed('SIGKILL')))).toContain('peer 2 was killed by SIGKILL');
    play.exited(0, killed('SIGTERM'));
    play.exited(1, SUCCESS);
    expect(play.exitCode).toBe(137);
  });

  it('says nothing of others when the failure was that of the last one', () => {
    const play = new Play();
    play.exited(0, SUCCESS);
    play.exited(1, SUCCESS);
    const effects = play.exited(2, failed(4));
    expect(textIn(effects)).toBe('peer 2 ended with exit code 4');
    expect(effects.at(-1)).toEqual({ type: 'end', exitCode: 4 });
  });

  it('hears only one ending of a process, and none of a process that it does not have', () => {
    const play = new Play();
    play.exited(0, SUCCESS);
    expect(play.exited(0, failed(1))).toEqual([]);
    expect(play.exited(99, failed(1))).toEqual([]);
    expect(play.exitCode).toBeNull();
  });
});

describe('with restarts', () => {
  it('starts a failed process again after a delay, and leaves the others alone', () => {
    const play = new Play({ maxRestarts: 2 });
    const effects = play.exited(1, killed('SIGKILL'));
    expect(effects).toContainEqual({ type: 'restart-later', index: 1, delayMs: restartDelay(1) });
    expect(killsIn(effects)).toEqual({});
    expect(textIn(effects)).toBe('peer 1 was killed by SIGKILL: restart 1 of 2 in 100 ms');
    expect(play.step({ type: 'restart-due', index: 1 })).toEqual([{ type: 'start', index: 1, restarts: 1 }]);
    for (const index of [0, 1, 2]) play.exited(index, SUCCESS);
    expect(play.exitCode, 'a failure that was made up for is none').toBe(0);
  });

  it('waits for a restart that is due although all others have ended', () => {
    const play = new Play({ maxRestarts: 1 });
    play.exited(1, failed(1));
    play.exited(0, SUCCESS);
    expect(play.exited(2, SUCCESS)).toEqual([]);
    play.step({ type: 'restart-due', index: 1 });
    expect(play.exited(1, SUCCESS)).toEqual([{ type: 'end', exitCode: 0 }]);
  });

  it('does not start a process again that ended with 0', () => {
    const play = new Play({ maxRestarts: 5 });
    expect(play.exited(0, SUCCESS)).toEqual([]);
    expect(play.step({ type: 'restart-due', index: 0 })).toEqual([]);
  });

  it('starts a process again that ended with 0 because it was asked to, but not once all are to end', () => {
    const play = new Play({ maxRestarts: 5 });
    const effects = play.exitedForRestart(0, SUCCESS);
    expect(effects).toContainEqual({ type: 'restart-later', index: 0, delayMs: restartDelay(1) });
    play.step({ type: 'restart-due', index: 0 });
    play.step({ type: 'signal', signal: 'SIGTERM' });
    expect(play.exitedForRestart(0, SUCCESS)).toEqual([]);
    for (const index of [1, 2]) play.exited(index, SUCCESS);
    expect(play.exitCode).toBe(143);
  });

  it('stops all when one process has used up its restarts, with the exit code of its last life', () => {
    const play = new Play({ maxRestarts: 2 });
    for (const code of [11, 12]) {
      play.exited(2, failed(code));
      play.step({ type: 'restart-due', index: 2 });
    }
    const effects = play.exited(2, failed(13));
    expect(textIn(effects)).toBe('peer 2 ended with exit code 13 after 2 restarts: stopping the others');
    expect(killsIn(effects)).toEqual({ 0: 'SIGTERM', 1: 'SIGTERM' });
    for (const index of [0, 1]) play.exited(index, killed('SIGTERM'));
    expect(play.exitCode).toBe(13);
  });

  it('counts the restarts of each process for itself', () => {
    const play = new Play({ maxRestarts: 1 });
    for (const index of [0, 1, 2]) {
      play.exited(index, failed(1));
      play.step({ type: 'restart-due', index });
    }
    expect(play.starts).toEqual([2, 2, 2]);
  });

  it('does not try again a command that can not be started', () => {
    const play = new Play({ maxRestarts: 9 });
    expect(textIn(play.exited(0, failed(127), false))).toBe('peer 0 ended with exit code 127: stopping the others');
    for (const index of [1, 2]) play.exited(index, failed(127), false);
    expect(play.exitCode).toBe(127);
  });

  it('waits longer from restart to restart, but never longer than ten seconds', () => {
    const delays = Array.from({ length: 2_000 }, (_, index) => restartDelay(index + 1));
    expect(delays.slice(0, 4)).toEqual([100, 200, 400, 800]);
    expect(Math.max(...delays)).toBe(10_000);
    expect([...delays].sort((left, right) => left - right)).toEqual(delays);
  });
});

describe('a signal', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGPIPE', 141],
  ] as const)('%s reaches all that run, and the launch ends with %i', (signal, code) => {
    const play = new Play();
    play.exited(1, SUCCESS);
    const effects = play.step({ type: 'signal', signal });
    expect(killsIn(effects)).toEqual({ 0: signal, 2: signal });
    expect(effects.at(-1)).toEqual({ type: 'start-grace', delayMs: POLICY.graceMs });
    play.exited(0, SUCCESS);
    play.exited(2, killed(signal));
    expect(play.exitCode).toBe(code);
  });

  it('takes back restarts that are due: what is stopping starts nothing', () => {
    const play = new Play({ maxRestarts: 3 });
    play.exited(0, failed(1));
    expect(killsIn(play.step({ type: 'signal', signal: 'SIGTERM' }))).toEqual({ 1: 'SIGTERM', 2: 'SIGTERM' });
    expect(play.step({ type: 'restart-due', index: 0 })).toEqual([]);
    expect(play.exited(1, failed(1)), 'nor is what fails now started again').toEqual([]);
    play.exited(2, failed(1));
    expect(play.exitCode).toBe(143);
  });

  it('ends a launch at once in which every process waits for its restart', () => {
    const play = new Play({ maxRestarts: 3 });
    for (const index of [0, 1, 2]) play.exited(index, failed(1));
    expect(play.step({ type: 'signal', signal: 'SIGINT' })).toEqual([{ type: 'end', exitCode: 130 }]);
  });

  it('that comes again is passed on again, but is no reason to kill, nor for another exit code', () => {
    const play = new Play();
    play.step({ type: 'signal', signal: 'SIGINT' });
    expect(play.step({ type: 'signal', signal: 'SIGTERM' })).toEqual([
      { type: 'kill', index: 0, signal: 'SIGTERM' },
      { type: 'kill', index: 1, signal: 'SIGTERM' },
      { type: 'kill', index: 2, signal: 'SIGTERM' },
    ]);
    for (const index of [0, 1, 2]) play.exited(index, killed('SIGINT'));
    expect(play.exitCode).toBe(130);
  });
});

describe('after the grace period', () => {
  it('kills what still runs, and only that, and ends with the code that was decided before', () => {
    const play = new Play();
    play.exited(0, failed(7));
    play.exited(1, killed('SIGTERM'));
    const effects = play.step({ type: 'grace-over' });
    expect(killsIn(effects)).toEqual({ 2: 'SIGKILL' });
    expect(textIn(effects)).toBe('1 still running after the grace period: killed');
    play.exited(2, killed('SIGKILL'));
    expect(play.exitCode).toBe(7);
  });
});

/** One thing that may happen next; `pick` chooses among the processes that it can happen to. */
const anyTurn = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('exited' as const),
      pick: fc.nat(),
      exit: fc.constantFrom(SUCCESS, failed(1), failed(7), killed('SIGKILL'), killed('SIGTERM')),
      startable: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('restart-due' as const), pick: fc.nat() }) },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('signal' as const), signal: fc.constantFrom(...STOP_SIGNALS) }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('grace-over' as const) }) },
);

const anyPolicy = fc.record({ processes: fc.integer({ min: 1, max: 5 }), maxRestarts: fc.integer({ min: 0, max: 3 }) });

describe('whatever happens', () => {
  it('keeps its rules, ends when its processes do, and with the code of the first thing that stopped it', () => {
    fc.assert(
      fc.property(anyPolicy, fc.array(anyTurn, { maxLength: 40 }), (policy, turns) => {
        const play = new Play(policy);
        let expected: number | null = null;
        for (const turn of turns) {
          if (play.exitCode !== null) break;
          if (turn.type === 'exited') {
            const index = [...play.running][turn.pick % Math.max(1, play.running.size)];
            if (index === undefined) continue;
            const isFinal = !turn.startable || play.starts[index]! > policy.maxRestarts;
            if (turn.exit.code !== 0 && isFinal) expected ??= exitCode(turn.exit);
            play.exited(index, turn.exit, turn.startable);
          } else if (turn.type === 'restart-due') {
            const index = [...play.due][turn.pick % Math.max(1, play.due.size)];
            if (index !== undefined) play.step({ type: 'restart-due', index });
          } else if (turn.type === 'signal') {
            play.step(turn);
            expected ??= exitCode(killed(turn.signal));
          } else if (play.graces > 0) {
            play.step(turn);
          }
        }
        // From here on all goes well, and the launch must find its end.
        for (const index of play.due) play.step({ type: 'restart-due', index });
        for (const index of play.running) play.exited(index, SUCCESS);
        expect(play.exitCode).toBe(expected ?? 0);
        expect(play.step({ type: 'signal', signal: 'SIGINT' })).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});
