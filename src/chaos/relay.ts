/**
 * Delay, reordering and damage, which need `netem` elsewhere: while a peer is so disturbed, the router sends its packets through
 * a process of ours (`relay-main.ts`). All others take the kernel's way. TCP itself sees what is late, overtaken or
 * damaged, as on a real network: flipping bits inside a stream would only test a middlebox that lies.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Namespaces, RELAY_DEVICE } from './namespaces.ts';
import type { Disturbance, PacketCounts } from './packets.ts';

/** A line to the relay's process. */
export interface RelayOrder {
  readonly address: string;
  readonly how: Disturbance | null;
}

/** A line from it: it is ready, or it has ended, having done this. */
export type RelayNews = { readonly type: 'ready' } | { readonly type: 'ended'; readonly counts: PacketCounts };

const PROCESS = fileURLToPath(new URL('./relay-main.js', import.meta.url));

/** It must be ready, and must have ended, within this (ms). */
const PATIENCE_MS = 10_000;

export class Relay {
  readonly #namespaces: Namespaces;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #diverted: Set<number> = new Set();
  #counts: PacketCounts | null = null;
  #wanted = true;

  /** @param onFailure called when it ends by itself */
  static async start(namespaces: Namespaces, seed: number, onFailure: (error: Error) => void): Promise<Relay> {
    namespaces.openRelay();
    const [program, ...args] = namespaces.wrap('router', [process.execPath, PROCESS, RELAY_DEVICE, String(seed)]);
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...namespaces.environment },
      // Of a group of its own, to which its socat belongs as well.
      detached: true,
    });
    const relay = new Relay(namespaces, child, onFailure);
    await relay.#ready(child);
    return relay;
  }

  private constructor(namespaces: Namespaces, child: ChildProcess, onFailure: (error: Error) => void) {
    this.#namespaces = namespaces;
    this.#child = child;
    child.stdin?.on('error', () => {}); // its end tells more
    this.#ended = new Promise((resolve) => {
      child.once('error', () => resolve()); // it could not be started
      child.once('close', () => resolve());
    });
    child.once('exit', (code, signal) => {
      this.#killGroup();
      if (this.#wanted) onFailure(new Error(`The relay of packets ended by itself (${signal ?? code}).`));
    });
  }

  async #ready(child: ChildProcess): Promise<void> {
    const lines = createInterface({ input: child.stdout! }); // it is a pipe
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('The relay of packets is not ready.')), PATIENCE_MS);
      void this.#ended.then(() => reject(new Error('The relay of packets has ended.')));
      lines.on('line', (line) => {
        const news = JSON.parse(line) as RelayNews; // written by relay-main.ts
        clearTimeout(timer);
        if (news.type === 'ready') resolve();
        else this.#counts = news.counts;
      });
    }).catch((error) => {
      this.#wanted = false;
      this.#killGroup();
      throw error;
    });
  }

  /** Disturbs what a peer sends and receives; null ends that. */
  disturb(index: number, how: Disturbance | null): void {
    const order: RelayOrder = { address: this.#namespaces.address(index), how };
    const isDiverted = this.#diverted.has(index);
    if (how === null && this.#diverted.delete(index)) this.#namespaces.divert(index, false);
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
    if (how === null || isDiverted) return;
    this.#namespaces.divert(index, true);
    this.#diverted.add(index);
  }

  /** What it did; null when it can't say. */
  async close(): Promise<PacketCounts | null> {
    this.#wanted = false;
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#killGroup(), PATIENCE_MS);
    await this.#ended;
    clearTimeout(timer);
    return this.#counts;
  }

  #killGroup(): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
}
