/** What launched processes are told, and how the way they end is told to a shell. */

import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { type LaunchedRun, launchEnvironment, peerName } from '../../src/launch/environment.ts';
import { describeExit, exitCode, exitCodeOfSignal } from '../../src/launch/exit.ts';
import { resolveJoin } from '../../src/options.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';

const RUN: LaunchedRun = {
  coordinator: 'tcp://127.0.0.1:7411',
  run: 'digits',
  token: 'secret',
  processes: 4,
  minWorldSize: 2,
};

describe('the environment of a launched process', () => {
  it('says which process it is, and how often it was started before', () => {
    expect(launchEnvironment(RUN, 3, 2)).toEqual({
      SKEIN_COORDINATOR: 'tcp://127.0.0.1:7411',
      SKEIN_RUN: 'digits',
      SKEIN_TOKEN: 'secret',
      SKEIN_LOCAL_RANK: '3',
      SKEIN_WORLD_SIZE: '4',
      SKEIN_MIN_WORLD_SIZE: '2',
      SKEIN_RESTARTS: '2',
    });
  });

  it("leaves the token as it is in the launcher's environment when the launch has none of its own", () => {
    expect(launchEnvironment({ ...RUN, token: undefined }, 0, 0)).not.toHaveProperty('SKEIN_TOKEN');
  });

  it('is all that join() needs', () => {
    const { runtime } = resolveJoin(undefined, {}, launchEnvironment(RUN, 0, 0), resolveSecurity);
    expect(runtime).toMatchObject({
      coordinators: [parseTcpAddress(RUN.coordinator)],
      run: RUN.run,
      token: RUN.token,
      startWorldSize: RUN.processes,
      minWorldSize: RUN.minWorldSize,
    });
  });

  it('gives each process a name of its own', () => {
    expect([0, 1, 10].map(peerName)).toEqual(['peer 0', 'peer 1', 'peer 10']);
  });
});

describe('the exit code for a shell', () => {
  it.each([0, 1, 7, 255])("is the process's own: %i", (code) => {
    expect(exitCode({ code, signal: null })).toBe(code);
  });

  it('is 128 + the number of the signal that killed the process', () => {
    expect(exitCode({ code: null, signal: 'SIGKILL' })).toBe(137);
    for (const [signal, number] of Object.entries(constants.signals))
      expect(exitCodeOfSignal(signal)).toBe(128 + number);
  });

  it('is never 0 for an ending that nobody can explain', () => {
    expect(exitCode({ code: null, signal: null })).toBe(1);
    expect(exitCode({ code: null, signal: 'SIGUNHEARDOF' })).toBe(128);
  });

  it('is put into words', () => {
    expect(describeExit({ code: 7, signal: null })).toBe('ended with exit code 7');
    expect(describeExit({ code: null, signal: 'SIGKILL' })).toBe('was killed by SIGKILL');
    expect(describeExit({ code: null, signal: null })).toBe('ended with exit code 1');
  });
});
