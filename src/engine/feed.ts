/**
 * What is live: Server-Sent Events to whoever looks on. A listener is first told the last minutes (`history`), then twice a second, and at
 * once when something happens, how the run is (`state`) and what happened since (`happenings`).
 *
 * What is kept for a listener is bounded: as long as one state has not left, it is not given another; who reads none for long is dropped.
 */
import type { ServerResponse } from 'node:http';
import type { ApiSource } from './http-api.ts';

/** Between looks at whether something has happened (ms), and between states where nothing has: what is shown is never a second old. */
const LOOK_MS = 150;
const STATE_MS = 450;

/** A listener that takes nothing for so long is dropped (ms). */
const STALLED_MS = 10_000;

/** Who may listen at once, in all. */
const MAX_LISTENERS = 64;

/** Runs that a listener is told the names of. */
const MAX_NAMES = 256;

interface Listener {
  readonly response: ServerResponse;
  /** The run that it asked for; null: the largest. */
  readonly wanted: string | null;
  /** The only one that it may see; null: all. */
  readonly allowed: string | null;
  /** Whether what it has shown is still good. */
  readonly mayStay: () => boolean;
  /** Of which run it was told the history. */
  run: string | null;
  /** Last happening that it was told. */
  told: number;
  statedAt: number;
  stalledSince: number | null;
}

export interface Audience {
  readonly wanted: string | null;
  readonly allowed: string | null;
  readonly mayStay: () => boolean;
}

export class Feed {
  readonly #source: ApiSource;
  readonly #listeners: Set<Listener> = new Set();
  /** How the runs are, as it was made for the first of those who are told at a look. */
  readonly #stated: Map<string, string> = new Map();
  #timer: NodeJS.Timeout | null = null;

  constructor(source: ApiSource) {
    this.#source = source;
  }

  get size(): number {
    return this.#listeners.size;
  }

  get isFull(): boolean {
    return this.#listeners.size >= MAX_LISTENERS;
  }

  /** @param response whose head was sent */
  add(response: ServerResponse, audience: Audience): void {
    const listener: Listener = { response, ...audience, run: null, told: 0, statedAt: -STATE_MS, stalledSince: null };
    this.#listeners.add(listener);
    response.once('close', () => this.#listeners.delete(listener));
    response.on('error', () => {}); // 'close' follows
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref();
    this.#tell(listener, performance.now());
    this.#stated.clear();
  }

  close(): void {
    for (const { response } of this.#listeners) response.destroy();
    this.#stop();
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  #look(): void {
    const now = performance.now();
    for (const listener of this.#listeners) this.#tell(listener, now);
    this.#stated.clear();
    if (this.#listeners.size === 0) this.#stop();
  }

  #tell(listener: Listener, now: number): void {
    const { response, mayStay } = listener;
    if (!mayStay()) {
      response.end('event: end\ndata: "What was shown is not good any more."\n\n');
      this.#listeners.delete(listener);
      return;
    }
    if (response.writableLength > 0) {
      listener.stalledSince ??= now;
      if (now - listener.stalledSince > STALLED_MS) response.destroy();
      return;
    }
    listener.stalledSince = null;
    const run = this.#runOf(listener);
    const timeline = run === null ? null : (this.#source.watch(run)?.timeline ?? null);
    const isNew = run !== listener.run || (timeline !== null && timeline.last < listener.told);
    const isNews = timeline !== null && timeline.last > listener.told;
    if (!isNew && !isNews && now - listener.statedAt < STATE_MS) return;
    let text = '';
    if (isNew) {
      listener.run = run;
      const { seconds, happenings } = timeline ?? { seconds: [], happenings: [] };
      text += frame('history', { run, seconds, happenings });
    } else if (isNews) {
      text += frame('happenings', timeline.since(listener.told));
    }
    listener.told = timeline?.last ?? 0;
    listener.statedAt = now;
    response.write(text + this.#stateOf(run, listener.allowed));
  }

  #runOf({ wanted, allowed }: Listener): string | null {
    if (allowed !== null || wanted !== null) return allowed ?? wanted;
    const [first] = this.#names(null);
    return first?.run ?? null;
  }

  /** The largest come first. */
  #names(allowed: string | null): readonly { readonly run: string; readonly members: number }[] {
    const names = this.#source.names().filter(({ run }) => allowed === null || run === allowed);
    return [...names].sort((left, right) => right.members - left.members).slice(0, MAX_NAMES);
  }

  #stateOf(run: string | null, allowed: string | null): string {
    const key = JSON.stringify([run, allowed]);
    let stated = this.#stated.get(key);
    if (stated === undefined) {
      const second = run === null ? undefined : this.#source.watch(run)?.timeline.seconds.at(-1);
      stated = frame('state', {
        at: Date.now(),
        coordinator: this.#source.coordinator(),
        runs: this.#names(allowed),
        run: run === null ? null : this.#source.run(run),
        second: second ?? null,
      });
      this.#stated.set(key, stated);
    }
    return stated;
  }
}

/** JSON has no line of its own in it, so it is one line. */
function frame(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
