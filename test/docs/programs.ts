/** Runs what the documents show: programs of one or more peers, and shell commands, each with a deadline. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startWatchdog } from '../../src/launch/watchdog.ts';
import { freePorts } from '../harness/ports.ts';
import { ROOT } from './documents.ts';

/** No program of a document runs longer than this (ms). */
const DEADLINE_MS = 50_000;

const watchdog = startWatchdog();
const running: Set<number> = new Set();

export interface Ended {
  /** Exit code, or the signal that ended it. */
  readonly code: number | NodeJS.Signals;
  /** Both ways, in the order in which it came. */
  readonly output: string;
}

/** Our own environment, without what would change what is shown. */
export function plainEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(SKEIN_|FORCE_COLOR$|NODE_OPTIONS$|VITEST)/.test(name),
  );
  return { ...Object.fromEntries(kept), NO_COLOR: '1' };
}

function end(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // Gone by itself.
  }
}

/**
 * @param until once it has written this it is asked to end, by SIGTERM to it and all that it has started
 */
export async function runProgram(
  [program, ...args]: readonly [string, ...string[]],
  {
    cwd,
    environment,
    until,
  }: { readonly cwd: string; readonly environment: NodeJS.ProcessEnv; readonly until?: RegExp },
): Promise<Ended> {
  // A process group of its own: it ends as a whole.
  const child = spawn(program, args, { cwd, env: environment, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const pid = child.pid ?? 0;
  running.add(pid);
  watchdog.watch([...running]);
  let output = '';
  let isAsked = false;
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (isAsked || until === undefined || !until.test(output)) return;
      isAsked = true;
      end(child, 'SIGTERM');
    });
  const deadline = setTimeout(() => {
    output += `\n(killed after ${DEADLINE_MS / 1_000} s)`;
    end(child, 'SIGKILL');
  }, DEADLINE_MS);
  try {
    await once(child, 'close');
    return { code: child.signalCode ?? child.exitCode!, output };
  } finally {
    clearTimeout(deadline);
    end(child, 'SIGKILL');
    running.delete(pid);
    watchdog.watch([...running]);
  }
}

/** In place of those that a document names, so that several of them can be tried at once. */
export interface Ports {
  readonly control: number;
  readonly http: number;
}

export const SHOWN_PORTS: Ports = { control: 7400, http: 7401 };

export async function portsToUse(): Promise<Ports> {
  const [control, http] = await freePorts(2);
  return { control: control!, http: http! };
}

/** The text with one pair of ports for another. */
export function withPorts(text: string, from: Ports, to: Ports): string {
  const pattern = new RegExp(`\\b(${from.control}|${from.http})\\b`, 'g');
  return text.replaceAll(pattern, (port) => String(Number(port) === from.control ? to.control : to.http));
}

/**
 * A folder with `skein` and `npx skein` as if this package were installed. A coordinator that is told no port takes DOCS_PORT instead
 * of its default.
 */
export function installBinaries(folder: string): string {
  mkdirSync(folder, { recursive: true });
  const skein = `
if [ "$1" = coordinator ]; then
  shift
  case "$*" in *--port*) ;; *) set -- --port "$DOCS_PORT" "$@" ;; esac
  case "$*" in *--http-port*) ;; *--serve-page*|*--dashboard*) set -- --http-port "$DOCS_HTTP_PORT" "$@" ;; esac
  set -- coordinator "$@"
fi
exec "${process.execPath}" "${join(ROOT, 'dist/src/cli/main.js')}" "$@"
`;
  const scripts = {
    skein: `#!/bin/bash${skein}`,
    npx: `#!/bin/bash\n[ "$1" = skein ] || { echo "npx $1 is not what this test installs" >&2; exit 1; }\nshift${skein}`,
  };
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), text);
    chmodSync(join(folder, name), 0o755);
  }
  return folder;
}
