/**
 * What a coordinator tells those who look on, and does for those who may change something, by its HTTP port.
 *
 *     GET  /api/state            how all runs are, in JSON                          role observer or admin
 *     GET  /api/events[?run=]    one run, live: Server-Sent Events (feed.ts)        role observer or admin
 *     GET  /metrics              for Prometheus (eyes/metrics.ts)                   role observer or admin
 *     POST /api/dismiss          {"peerId", "run"?}                                 role admin
 *
 * Where there is no token, whoever is on this machine may do both, but no page that came from elsewhere.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import * as v from 'valibot';
import type { CoordinatorState } from '../eyes/coordinator-state.ts';
import { MAX_METRIC_RUNS, METRICS_TYPE, metricsText } from '../eyes/metrics.ts';
import type { RunState } from '../eyes/run-state.ts';
import type { RunWatch } from '../eyes/run-watch.ts';
import type { NotesState } from '../notes-document.ts';
import { HANDSHAKE_TIMEOUT_MS, MAX_HANDSHAKE_BYTES } from '../wire/limits.ts';
import { type Rights, rightsOf } from './bearer.ts';
import { Feed } from './feed.ts';

/** What it needs of a coordinator. */
export interface ApiSource {
  /** Its token; empty when it has none. */
  readonly secret: string;
  /** Every run, and how many members it has. */
  names(): readonly { readonly run: string; readonly members: number }[];
  /** A run as it is now; null: there is none of this name. */
  run(name: string): RunState | null;
  /** What was counted and kept of a run. */
  watch(name: string): RunWatch | null;
  /** null: it is not there yet. */
  coordinator(): CoordinatorState | null;
  /** What its peers have noted; null: nothing. */
  notes(run: string): NotesState | null;
  /** The peer is there. */
  dismiss(run: string, peerId: string): void;
}

export interface Api {
  /** Whether it is a request for this; if so, it is answered. */
  handle(request: IncomingMessage, response: ServerResponse): boolean;
  close(): void;
}

export interface ApiEvents {
  /** Why somebody may not do what was asked for. */
  onRefused(request: IncomingMessage, reason: string): void;
  /** Somebody who may listens to the feed, and stays. */
  onListener(request: IncomingMessage): void;
}

interface Answer {
  readonly status: number;
  /** An object goes out as JSON. */
  readonly body: object | string;
  readonly headers?: Readonly<Record<string, string>>;
}

const HEADERS: Readonly<Record<string, string>> = {
  'Content-Type': 'application/json',
  'Cache-Control': 'no-store',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
};

const METHODS: Readonly<Record<string, 'GET' | 'POST'>> = {
  '/api/state': 'GET',
  '/api/events': 'GET',
  '/metrics': 'GET',
  '/api/dismiss': 'POST',
};

/** How finely the lateness of timers is measured (ms). */
const LAG_RESOLUTION_MS = 20;

const name = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
const dismissal = v.strictObject({ peerId: name, run: v.optional(name) });

const LOOPBACK_NAMES = new Set(['127.0.0.1', '[::1]', 'localhost']);

/** Whether a URL, or what a Host header says, names this machine. */
export function isOfThisMachine(text: string | undefined): boolean {
  const url = text?.includes('://') === true ? text : `http://${text}`;
  return URL.canParse(url) && LOOPBACK_NAMES.has(new URL(url).hostname);
}

function fails(status: number, error: string, headers?: Readonly<Record<string, string>>): Answer {
  return { status, body: { error }, ...(headers === undefined ? {} : { headers }) };
}

/** A name that an attacker's page points to this machine is another one: the Host header shows it (DNS rebinding). */
function rightsOfLocal({ headers: { origin, host } }: IncomingMessage): Rights {
  if (isOfThisMachine(host) && (origin === undefined || isOfThisMachine(origin))) return { role: 'admin', run: null };
  return { status: 403, refusal: 'Where there is no token, only pages and programs of this machine may come here.' };
}

function refuses({ status, refusal }: Extract<Rights, { status: number }>): Answer {
  return fails(status, refusal, status === 401 ? { 'WWW-Authenticate': 'Bearer realm="skein"' } : {});
}

/** The body of a request; null when it is too long, or does not come in time. */
function bodyOf(request: IncomingMessage): Promise<Buffer | null> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    const timer = setTimeout(() => resolve(null), HANDSHAKE_TIMEOUT_MS);
    const finish = (body: Buffer | null) => {
      clearTimeout(timer);
      resolve(body);
    };
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes > MAX_HANDSHAKE_BYTES) finish(null);
      else parts.push(part);
    });
    request.on('end', () => finish(Buffer.concat(parts)));
    request.on('close', () => finish(null));
  });
}

function readDismissal(body: Buffer): v.InferOutput<typeof dismissal> | null {
  try {
    const parsed = v.safeParse(dismissal, JSON.parse(body.toString()));
    return parsed.success ? parsed.output : null;
  } catch {
    return null;
  }
}

function dismiss(source: ApiSource, allowed: string | null, body: Buffer | null): Answer {
  if (body === null) return fails(413, `A request has at most ${MAX_HANDSHAKE_BYTES} bytes.`);
  const wanted = readDismissal(body);
  if (wanted === null)
    return fails(400, 'Send {"peerId": "…"}, and "run" where several runs have a peer of that name.');
  if (allowed !== null && wanted.run !== undefined && wanted.run !== allowed)
    return fails(403, `This pass is for the run ${allowed}.`);
  const run = wanted.run ?? allowed;
  const having = runsOf(source, run).filter(({ members, joining }) =>
    [...members, ...joining].some(({ peerId }) => peerId === wanted.peerId),
  );
  const [found, another] = having;
  if (found === undefined)
    return fails(404, `There is no peer ${wanted.peerId}${run === null ? '' : ` in run ${run}`}.`);
  if (another !== undefined) return fails(409, `Several runs have a peer ${wanted.peerId}: name one of them in "run".`);
  source.dismiss(found.run, wanted.peerId);
  return { status: 200, body: { dismissed: wanted.peerId, run: found.run } };
}

/** @param allowed the only one that is told; null: all */
function runsOf(source: ApiSource, allowed: string | null): (RunState & { readonly notes: NotesState | null })[] {
  const names = source.names().filter(({ run }) => allowed === null || run === allowed);
  return names.flatMap(({ run }) => {
    const state = source.run(run);
    return state === null ? [] : [{ ...state, notes: source.notes(run) }];
  });
}

class HttpApi implements Api {
  readonly #source: ApiSource;
  readonly #events: ApiEvents;
  readonly #peerSeries: number;
  readonly #feed: Feed;
  readonly #lag: ReturnType<typeof monitorEventLoopDelay> = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });

  constructor(source: ApiSource, peerSeries: number, events: ApiEvents) {
    this.#source = source;
    this.#events = events;
    this.#peerSeries = peerSeries;
    this.#feed = new Feed(source);
    this.#lag.enable();
  }

  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const [path = ''] = (request.url ?? '').split('?', 1);
    if (!path.startsWith('/api/') && path !== '/metrics') return false;
    const answered = this.#answerTo(path, request, response).catch((error: unknown) =>
      fails(500, `The coordinator failed to answer: ${error instanceof Error ? error.message : String(error)}`),
    );
    void answered.then((answer) => {
      if (answer === null) return;
      const { status, body, headers } = answer;
      if (status === 401 || status === 403) this.#events.onRefused(request, Object.values(body).join());
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      response.writeHead(status, { ...HEADERS, 'Content-Length': Buffer.byteLength(text), ...headers });
      response.end(request.method === 'HEAD' ? undefined : text);
    });
    return true;
  }

  close(): void {
    this.#feed.close();
    this.#lag.disable();
  }

  #rightsOf(request: IncomingMessage): Rights {
    const { secret } = this.#source;
    return secret === '' ? rightsOfLocal(request) : rightsOf(request.headers.authorization, secret, Date.now());
  }

  /** null: it goes on being answered. */
  async #answerTo(path: string, request: IncomingMessage, response: ServerResponse): Promise<Answer | null> {
    const source = this.#source;
    const rights = this.#rightsOf(request);
    // Who may not come in is not told what there is.
    if ('status' in rights) return refuses(rights);
    const method = METHODS[path];
    if (method === undefined) return fails(404, `There is ${Object.keys(METHODS).join(', ')}.`);
    if (request.method !== method) return fails(405, `Ask for ${path} by ${method}.`, { Allow: method });
    switch (path) {
      case '/api/state':
        return { status: 200, body: { coordinator: source.coordinator(), runs: runsOf(source, rights.run) } };
      case '/api/events':
        return this.#listen(request, response, rights.run);
      case '/metrics':
        return { status: 200, body: await this.#metrics(rights.run), headers: { 'Content-Type': METRICS_TYPE } };
      default:
        if (rights.role !== 'admin')
          return refuses({ status: 403, refusal: 'To dismiss a peer takes a pass for the role admin.' });
        return dismiss(source, rights.run, await bodyOf(request));
    }
  }

  #listen(request: IncomingMessage, response: ServerResponse, allowed: string | null): Answer | null {
    const wanted = new URLSearchParams((request.url ?? '').split('?')[1]).get('run');
    if (allowed !== null && wanted !== null && wanted !== allowed)
      return fails(403, `This pass is for the run ${allowed}.`);
    if (this.#feed.isFull) return fails(503, 'Too many look on already: ask for /api/state now and then.');
    this.#events.onListener(request);
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/event-stream' });
    this.#feed.add(response, { wanted, allowed, mayStay: () => !('status' in this.#rightsOf(request)) });
    return null;
  }

  async #metrics(allowed: string | null): Promise<string> {
    const source = this.#source;
    const names = source.names().filter(({ run }) => allowed === null || run === allowed);
    const told = [...names].sort((left, right) => right.members - left.members).slice(0, MAX_METRIC_RUNS);
    const runs = told.flatMap(({ run }) => {
      const state = source.run(run);
      return state === null ? [] : [{ state, calls: source.watch(run)?.calls ?? [] }];
    });
    const coordinator = source.coordinator();
    if (coordinator === null) return '';
    const { heapUsed, rss } = process.memoryUsage();
    // What is measured is the time between two turns of a timer, in nanoseconds.
    const seconds = (between: number) => Math.max(0, between / 1e6 - LAG_RESOLUTION_MS) / 1_000;
    const loopLag = {
      p50: seconds(this.#lag.percentile(50)),
      p99: seconds(this.#lag.percentile(99)),
      max: seconds(this.#lag.max),
    };
    this.#lag.reset(); // so that each answer tells of the time since the one before
    const own = { heapBytes: heapUsed, residentBytes: rss, loopLag, listeners: this.#feed.size };
    return metricsText({ coordinator, process: own, runCount: names.length, runs, peerSeries: this.#peerSeries });
  }
}

/** @param peerSeries members of each run that have series of their own in `/metrics` */
export function serveApi(source: ApiSource, peerSeries: number, events: ApiEvents): Api {
  return new HttpApi(source, peerSeries, events);
}
