/** The coordinator of a run of chaos, in a process of its own, which is killed and started again at its address. */
import { type ChildProcess, spawn } from 'node:child_process';
import { describeExit, exitText } from '../launch/exit.ts';
import { startWatchdog } from '../launch/watchdog.ts';

/** It must listen within this (ms). */
const LISTEN_MS = 20_000;

interface CoordinatorSetting {
  /** The command that runs it, but for its port. */
  readonly command: readonly [string, ...string[]];
  readonly environment: NodeJS.ProcessEnv;
}

export class MortalCoordinator {
  readonly #setting: CoordinatorSetting;
  readonly #watchdog = startWatchdog();
  readonly #ends: (number | string)[] = [];
  #child: ChildProcess | null = null;
  #address = '';
  #closed = false;

  private constructor(setting: CoordinatorSetting) {
    this.#setting = setting;
  }

  /** @param port 0 for any that is free */
  static async start(setting: CoordinatorSetting, port: number): Promise<MortalCoordinator> {
    const coordinator = new MortalCoordinator(setting);
    try {
      await coordinator.#start(port);
    } catch (error) {
      coordinator.close();
      throw error;
    }
    return coordinator;
  }

  /** `tcp://host:port` */
  get address(): string {
    return this.#address;
  }

  /** How it ended by itself: exit codes or signals. */
  get ends(): readonly (number | string)[] {
    return this.#ends;
  }

  async #start(port: number): Promise<void> {
    const [program, ...args] = this.#setting.command;
    const child = spawn(program, [...args, '--port', `${port}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: this.#setting.environment,
      // An interrupt at the terminal is for us, who end the peers first.
      detached: true,
    });
    this.#child = child;
    if (child.pid !== undefined) this.#watchdog.watch([child.pid]);
    let text = '';
    this.#address = await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`The coordinator did not listen within ${LISTEN_MS} ms.`)),
        LISTEN_MS,
      );
      const settle = (by: () => void): void => {
        clearTimeout(timer);
        by();
      };
      child.once('error', (error) => settle(() => reject(error)));
      child.once('exit', (code, signal) => {
        if (this.#child !== child) {
          // Killed by `restart`, perhaps before we have read that it listens, and another follows at the same address.
          settle(() => resolve(this.#address));
          return;
        }
        this.#child = null;
        if (!this.#closed) this.#ends.push(exitText({ code, signal }));
        settle(() => reject(new Error(`The coordinator ${describeExit({ code, signal })} before it listened.`)));
      });
      child.stdout.on('data', (bytes: Buffer) => {
        text += bytes.toString();
        const address = /tcp:\/\/\S+:\d+/.exec(text)?.[0];
        if (address !== undefined) settle(() => resolve(address));
      });
    });
  }

  /** Kills it, and starts it again when `away` is over. Does nothing while it is away already, or has ended by itself. */
  async restart(away: () => Promise<void>): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#child = null;
    const gone = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await gone;
    await away();
    if (!this.#closed) await this.#start(Number(/\d+$/.exec(this.#address)?.[0]));
  }

  close(): void {
    this.#closed = true;
    this.#child?.kill('SIGKILL');
    this.#watchdog.close();
  }
}
