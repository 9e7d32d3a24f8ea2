/** The last line of defence: launched processes die with a launcher that could not stop them any more. */
import { expect, test } from 'vitest';
import { Command } from '../cli/command.ts';

const WATCHDOG = new URL('../../dist/src/launch/watchdog.js', import.meta.url).href;

/** A launcher in miniature: watches the first of two processes, each of which leads a group of its own. */
function launcher(end: string): Command {
  return new Command([
    '--input-type=module',
    '-e',
    `
    import { spawn } from 'node:child_process';
    import { startWatchdog } from '${WATCHDOG}';
    const options = { detached: true, stdio: 'ignore' };
    const sleeper = () => spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], options);
    const [watched, other] = [sleeper(), sleeper()];
    const watchdog = startWatchdog();
    watchdog.watch([watched.pid, other.pid]);
    watchdog.watch([watched.pid]);
    console.log('watched ' + watched.pid);
    console.log('other ' + other.pid);
    ${end}
    `,
  ]);
}

async function pidOf(command: Command, name: string): Promise<number> {
  await command.says(new RegExp(`^${name} \\d+$`));
  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(command.stdout)?.[1]);
}

test('what is watched last is killed when the launcher vanishes, and nothing else is', async () => {
  await using command = launcher('');
  const [watched, other] = [await pidOf(command, 'watched'), await pidOf(command, 'other')];
  expect(command.family()).toEqual(expect.arrayContaining([watched, other]));
  command.child.kill('SIGKILL');
  expect(await command.ended).toBe('SIGKILL');
  // The watchdog itself ends too: only the process that it was told to forget is left.
  await command.leaves([other]);
});

test('a launcher that takes leave of its watchdog leaves its processes alone', async () => {
  await using command = launcher('watchdog.close(); watched.unref(); other.unref();');
  const [watched, other] = [await pidOf(command, 'watched'), await pidOf(command, 'other')];
  expect(await command.ended).toBe(0);
  await command.leaves([watched, other]);
});
