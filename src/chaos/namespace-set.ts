/**
 * Network namespaces that vanish with the process that made them, however it ends, together with all that runs in them. What
 * connects them is their maker's business. Needs root and `ip`.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';

/** Debian keeps them where no user's path leads. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** Where `ip` lists them. */
const FOLDER = '/run/netns';

/** Ends what runs in the namespaces that it is given, and deletes them. A namespace that was not made is no error. */
const REMOVE =
  'for name in "$@"; do kill -KILL $(ip netns pids "$name" 2>/dev/null) 2>/dev/null; ip netns del "$name" 2>/dev/null; done; true';

/** The same for those whose names it has read, once nobody holds its stdin any more. */
const GUARD = `set --; while read -r name; do set -- "$@" "$name"; done; ${REMOVE}`;

/**
 * Runs one of the system's tools.
 * @param input what it reads from its stdin
 * @throws Error with what the tool says
 */
export function runTool(program: string, args: readonly string[], input = ''): void {
  try {
    execFileSync(program, args, { env: { ...process.env, PATH }, input, stdio: ['pipe', 'ignore', 'pipe'] });
  } catch (error) {
    const text = (error as { stderr?: Buffer }).stderr?.toString().trim() ?? '';
    throw new Error(`${program} ${args.join(' ')} failed: ${text === '' ? String(error) : text}`, { cause: error });
  }
}

/** That a program can't be run, in words that name its Debian package; null when it can. */
export function programMissing(program: string, argument: string, debianPackage: string): string | null {
  try {
    runTool(program, [argument]);
    return null;
  } catch {
    return `there is no ${program} (Debian package ${debianPackage})`;
  }
}

/** What is missing for namespaces, in words; null when they can be made. */
export function namespacesMissing(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a feature of Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  return (
    programMissing('ip', '-Version', 'iproute2') ??
    programMissing('nft', '--version', 'nftables') ??
    programMissing('tc', '-Version', 'iproute2')
  );
}

/** Removes what dead processes left: a guard can be killed as well as its process. */
function sweep(): void {
  if (!existsSync(FOLDER)) return;
  const isStale = (name: string): boolean => {
    const pid = /^skein(\d+)-/.exec(name)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  };
  remove(readdirSync(FOLDER).filter(isStale));
}

function remove(names: readonly string[]): void {
  if (names.length > 0) runTool('/bin/sh', ['-c', REMOVE, 'sh', ...names]);
}

export class NamespaceSet {
  /** Begins with the id of the process, by which `sweep` knows whose it is. */
  readonly #prefix: string = `skein${process.pid}-${randomBytes(3).toString('hex')}-`;
  readonly #names: Set<string> = new Set();
  readonly #guard: ChildProcess;

  constructor() {
    sweep();
    this.#guard = this.#startGuard();
  }

  /** Removes the namespaces when this process is killed and can't do it any more. */
  #startGuard(): ChildProcess {
    const shell = spawn('/bin/sh', ['-c', GUARD], {
      stdio: ['pipe', 'ignore', 'ignore'],
      env: { PATH },
      detached: true,
    });
    shell.on('error', () => {}); // Without it there is no such protection.
    shell.stdin.on('error', () => {});
    shell.unref();
    return shell;
  }

  /** Makes a namespace, whose loopback is up. */
  add(label: string): void {
    const name = this.nameOf(label);
    this.#guard.stdin?.write(`${name}\n`);
    this.#names.add(name);
    runTool('ip', ['netns', 'add', name]);
    runTool('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
  }

  /** What the system calls it. */
  nameOf(label: string): string {
    return `${this.#prefix}${label}`;
  }

  /** Has `ip` carry out these lines in a namespace: one process for all of them. */
  ip(label: string, lines: readonly string[]): void {
    runTool('ip', ['-n', this.nameOf(label), '-batch', '-'], lines.join('\n'));
  }

  /** Runs one of the system's tools in a namespace. */
  inside(label: string, command: readonly string[], input = ''): void {
    runTool('ip', ['netns', 'exec', this.nameOf(label), ...command], input);
  }

  /** Sets variables below /proc/sys/net/ipv4 of a namespace. */
  configure(label: string, settings: Readonly<Record<string, number>>): void {
    for (const [name, value] of Object.entries(settings))
      this.inside(label, ['sh', '-c', `echo ${value} > /proc/sys/net/ipv4/${name}`]);
  }

  /** The command that runs `command` in a namespace. */
  wrap(label: string, command: readonly [string, ...string[]]): [string, ...string[]] {
    return ['ip', 'netns', 'exec', this.nameOf(label), ...command];
  }

  /** Environment for what is wrapped: where `ip` is found. */
  get environment(): NodeJS.ProcessEnv {
    return { PATH };
  }

  /** Kills what still runs in the namespaces, and removes them. May be called twice. */
  remove(): void {
    remove([...this.#names]);
    this.#names.clear();
    // It must not find namespaces of the same names that another process makes later.
    this.#guard.kill('SIGKILL');
  }
}
