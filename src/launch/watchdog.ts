/**
 * Kills the launched processes when the launcher itself was killed and can't do it any more. A shell waits at the end of a
 * pipe that only the launcher holds: each line names the process groups that live now, and the end of the pipe means that
 * the launcher is gone.
 */
import { spawn } from 'node:child_process';

const SCRIPT = 'while read -r line; do groups=$line; done; for group in $groups; do kill -KILL "-$group"; done';

export interface Watchdog {
  /** Process groups to kill when this process vanishes. An empty list makes it harmless. */
  watch(groups: readonly number[]): void;
  close(): void;
}

/** Process groups are a POSIX idea: elsewhere the watchdog does nothing. */
export function startWatchdog(): Watchdog {
  if (process.platform === 'win32') return { watch: () => {}, close: () => {} };
  // In a session of its own: what kills the launcher's process group must not kill this.
  const shell = spawn('/bin/sh', ['-c', SCRIPT], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  // Without a shell there is no such protection, which is no reason to refuse the launch.
  shell.on('error', () => {});
  shell.stdin.on('error', () => {});
  shell.unref();
  return {
    watch: (groups) => void shell.stdin.write(`${groups.join(' ')}\n`),
    close: () => void shell.stdin.end('\n'),
  };
}
