/**
 * Two network namespaces with a long way between them: a rate, a delay and a queue in each direction. The kernel may lack `netem`, and
 * what splits TCP in two would hide what is sought, so whole frames go through a process of ours. Needs root, `ip`, and
 * macvtap devices.
 *
 *     left ── veth ── macvtap ── long-pipe-main.ts ── macvtap ── veth ── right
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { NamespaceSet } from '../../src/chaos/namespace-set.ts';
import { built } from './built.ts';
import type { Shape } from './shaper.ts';

export type PipeEnd = 'left' | 'right';

const MIDDLE = 'middle';
const ENDS: readonly PipeEnd[] = ['left', 'right'];
const ADDRESSES: Readonly<Record<PipeEnd, string>> = { left: '10.84.0.1', right: '10.84.0.2' };
const SCRIPT = built('test/harness/long-pipe-main.ts');
/** Frames that wait until they are read: so many that none is lost while our process does not run. */
const QUEUE_LENGTH = 10_000;
/** What the pipe does is awaited no longer than this (ms). */
const PATIENCE_MS = 10_000;

export interface PipeCounts {
  /** Milliseconds of the pipe's own clock. */
  readonly at: number;
  /** Microseconds. */
  readonly cpu: { readonly user: number; readonly system: number };
  /** Of what comes from the left, and of what comes from the right. */
  readonly counts: readonly [PipeCount, PipeCount];
}

interface PipeCount {
  /** Bytes on the wire. */
  readonly passed: number;
  /** Frames. */
  readonly dropped: number;
}

/** What is missing for macvtap devices, in words; null when they can be made. */
export function longPipeMissing(): string | null {
  const set = new NamespaceSet();
  try {
    set.add('try');
    set.ip('try', ['link add one type veth peer name other', 'link add link one name tap type macvtap mode passthru']);
    return null;
  } catch (error) {
    return `macvtap devices can't be made: ${error instanceof Error ? error.message : error}`;
  } finally {
    set.remove();
  }
}

export class LongPipe {
  readonly #set: NamespaceSet = new NamespaceSet();
  #child: ChildProcess | null = null;

  /**
   * @param mtu of the devices at the ends
   * @throws Error when one of the tools fails; what was made until then is removed
   */
  static async open(shape: Shape, mtu = 1_500): Promise<LongPipe> {
    const pipe = new LongPipe();
    try {
      pipe.#connect(mtu);
      await pipe.#start(shape);
      return pipe;
    } catch (error) {
      pipe.close();
      throw error;
    }
  }

  private constructor() {}

  #connect(mtu: number): void {
    const set = this.#set;
    set.add(MIDDLE);
    for (const end of ENDS) {
      set.add(end);
      set.ip(MIDDLE, [
        `link add ${end} mtu ${mtu} type veth peer name net mtu ${mtu} netns ${set.nameOf(end)}`,
        `link set ${end} up`,
        `link add link ${end} name ${tapOf(end)} type macvtap mode passthru`,
        `link set ${tapOf(end)} txqueuelen ${QUEUE_LENGTH} up`,
      ]);
      set.ip(end, [`addr add ${ADDRESSES[end]}/24 dev net`, 'link set net up']);
    }
  }

  async #start(shape: Shape): Promise<void> {
    const order = JSON.stringify({ devices: ENDS.map(tapOf), shape });
    const [program, ...args] = this.wrap(MIDDLE, [process.execPath, SCRIPT, order]);
    this.#child = spawn(program, args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, ...this.environment },
    });
    await this.#told();
  }

  #told(): Promise<PipeCounts> {
    const child = this.#child!; // started before anything is asked of it
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        child.removeAllListeners();
      };
      const fail = (reason: string): void => {
        settle();
        child.on('error', () => {});
        reject(new Error(`The long pipe ${reason}.`));
      };
      const timer = setTimeout(() => fail('does not answer'), PATIENCE_MS);
      child.once('error', (error) => fail(error.message));
      child.once('exit', (code, signal) => fail(`has ended (${signal ?? code})`));
      child.once('message', (counts) => {
        settle();
        resolve(counts as PipeCounts); // as long-pipe-main.ts tells it
      });
    });
  }

  /** What has gone through it until now. */
  counts(): Promise<PipeCounts> {
    const told = this.#told();
    this.#child?.send('counts');
    return told;
  }

  address(end: PipeEnd): string {
    return ADDRESSES[end];
  }

  /** The command that runs `command` at one end. */
  wrap(where: PipeEnd | typeof MIDDLE, command: readonly [string, ...string[]]): [string, ...string[]] {
    return this.#set.wrap(where, command);
  }

  /** Environment for what is wrapped: where `ip` is found. */
  get environment(): NodeJS.ProcessEnv {
    return this.#set.environment;
  }

  /** Sets variables below /proc/sys/net/ipv4 at both ends. */
  configure(settings: Readonly<Record<string, string>>): void {
    for (const end of ENDS)
      for (const [name, value] of Object.entries(settings))
        this.#set.inside(end, ['sh', '-c', `echo "${value}" > /proc/sys/net/ipv4/${name}`]);
  }

  /** Removes it, with what runs at its ends. May be called twice. */
  close(): void {
    this.#child?.kill('SIGKILL');
    this.#set.remove();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function tapOf(end: PipeEnd): string {
  return `tap-${end}`;
}
