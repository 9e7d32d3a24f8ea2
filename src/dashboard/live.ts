/**
 * The live feed. It is read by `fetch`, as an `EventSource` can't show a token, and a token has no place in an address. When it breaks
 * it is asked for again.
 */
import type { Happening } from '../eyes/timeline.ts';
import type { HistoryEvent, StateEvent } from './model.ts';

export type LinkState = 'waiting' | 'live' | 'broken' | 'closed';

export interface LiveEvents {
  onHistory(history: HistoryEvent): void;
  onHappenings(happenings: readonly Happening[]): void;
  onState(state: StateEvent): void;
  onLink(state: LinkState, text: string): void;
  /** What was shown, or nothing, is not enough: `refusal` says why. */
  onRefused(refusal: string): void;
}

/** Between attempts (ms). */
const FIRST_MS = 250;
const LAST_MS = 4_000;

/** A feed that says nothing for so long is given up (ms): it speaks every second. */
const SILENT_MS = 5_000;

/** Where the token is kept: as long as the tab is open, and for this origin alone. */
const KEY = 'skein-token';

export function token(): string {
  return sessionStorage.getItem(KEY) ?? '';
}

export function keepToken(text: string): void {
  if (text === '') sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, text);
}

export function authorization(): Record<string, string> {
  const shown = token();
  return shown === '' ? {} : { Authorization: `Bearer ${shown}` };
}

/** The reason that an answer which is none of success gives. */
export async function refusalIn(response: Response): Promise<string> {
  try {
    const { error } = (await response.json()) as { readonly error?: unknown };
    return typeof error === 'string' ? error : response.statusText;
  } catch {
    return response.statusText;
  }
}

export class Live {
  readonly #events: LiveEvents;
  #abort: AbortController | null = null;

  constructor(events: LiveEvents) {
    this.#events = events;
  }

  /** @param run null: the largest */
  start(run: string | null): void {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    void this.#keep(run, abort);
  }

  stop(): void {
    this.#abort?.abort();
    this.#abort = null;
  }

  async #keep(run: string | null, { signal }: AbortController): Promise<void> {
    for (let wait = FIRST_MS; !signal.aborted; wait = Math.min(LAST_MS, 2 * wait)) {
      try {
        const isRefused = await this.#read(run, signal, () => {
          wait = FIRST_MS;
        });
        if (isRefused) return;
      } catch {
        // The coordinator is away, or was too slow: it is asked again.
      }
      if (signal.aborted) return;
      this.#events.onLink('broken', 'Lost the coordinator, trying again …');
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  /** Whether it makes no sense to ask again. */
  async #read(run: string | null, signal: AbortSignal, onWord: () => void): Promise<boolean> {
    const query = run === null ? '' : `?${new URLSearchParams({ run })}`;
    const silence = new AbortController();
    const give = () => silence.abort();
    signal.addEventListener('abort', give);
    let timer = setTimeout(give, SILENT_MS);
    try {
      const response = await fetch(`api/events${query}`, {
        headers: authorization(),
        cache: 'no-store',
        signal: silence.signal,
      });
      if (response.status === 401 || response.status === 403) {
        this.#events.onRefused(await refusalIn(response));
        return true;
      }
      if (!response.ok || response.body === null) throw new Error(await refusalIn(response));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return false;
        clearTimeout(timer);
        timer = setTimeout(give, SILENT_MS);
        onWord();
        const frames = (text + value).split('\n\n');
        text = frames.pop() ?? '';
        for (const frame of frames) this.#take(frame);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', give);
    }
  }

  #take(frame: string): void {
    const [, event, data] = /^event: (\w+)\ndata: (.*)$/s.exec(frame) ?? [];
    if (event === undefined || data === undefined) return;
    const value: unknown = JSON.parse(data);
    // What the coordinator sends, of the same release as this page.
    if (event === 'history') this.#events.onHistory(value as HistoryEvent);
    else if (event === 'happenings') this.#events.onHappenings(value as readonly Happening[]);
    else if (event === 'state') {
      this.#events.onLink('live', 'Live');
      this.#events.onState(value as StateEvent);
    }
  }
}
