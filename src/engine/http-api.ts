/**
 * What a coordinator tells those who look on, and does for those who may change something: JSON by its HTTP port.
 *
 *     GET  /api/state                                role observer or admin
 *     POST /api/dismiss  {"peerId", "run"?}          role admin
 *
 * Where there is no token, whoever is on this machine may do both, but no page that came from elsewhere.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as v from 'valibot';
import type { NotesState } from '../notes-document.ts';
import { HANDSHAKE_TIMEOUT_MS, MAX_HANDSHAKE_BYTES } from '../wire/limits.ts';
import { type Rights, rightsOf } from './bearer.ts';
import type { RunState } from './run-state.ts';

/** What it needs of a coordinator. */
export interface ApiSource {
  /** Its token; empty when it has none. */
  readonly secret: string;
  /** Every run, as it is now. */
  runs(): readonly (RunState & { readonly notes: NotesState | null })[];
  /** The peer is there. */
  dismiss(run: string, peerId: string): void;
}

export interface Api {
  /** Whether it is a request for this; if so, it is answered. */
  handle(request: IncomingMessage, response: ServerResponse): boolean;
}

interface Answer {
  readonly status: number;
  readonly body: object;
  readonly headers?: Readonly<Record<string, string>>;
}

const HEADERS: Readonly<Record<string, string>> = {
  'Content-Type': 'application/json',
  'Cache-Control': 'no-store',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
};

const METHODS: Readonly<Record<string, 'GET' | 'POST'>> = { '/api/state': 'GET', '/api/dismiss': 'POST' };

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
  const having = source.runs().filter((one) => {
    const isThere = [...one.members, ...one.joining].some(({ peerId }) => peerId === wanted.peerId);
    return isThere && (run === null || one.run === run);
  });
  const [found, another] = having;
  if (found === undefined)
    return fails(404, `There is no peer ${wanted.peerId}${run === null ? '' : ` in run ${run}`}.`);
  if (another !== undefined) return fails(409, `Several runs have a peer ${wanted.peerId}: name one of them in "run".`);
  source.dismiss(found.run, wanted.peerId);
  return { status: 200, body: { dismissed: wanted.peerId, run: found.run } };
}

async function answerTo(source: ApiSource, path: string, request: IncomingMessage): Promise<Answer> {
  const rights =
    source.secret === '' ? rightsOfLocal(request) : rightsOf(request.headers.authorization, source.secret, Date.now());
  // Who may not come in is not told what there is.
  if ('status' in rights) return refuses(rights);
  const method = METHODS[path];
  if (method === undefined) return fails(404, 'There is /api/state and /api/dismiss.');
  if (request.method !== method) return fails(405, `Ask for ${path} by ${method}.`, { Allow: method });
  if (method === 'GET') {
    const runs = source.runs().filter(({ run }) => rights.run === null || run === rights.run);
    return { status: 200, body: { runs } };
  }
  if (rights.role !== 'admin')
    return refuses({ status: 403, refusal: 'To dismiss a peer takes a pass for the role admin.' });
  return dismiss(source, rights.run, await bodyOf(request));
}

/** @param onRefused is told why somebody may not do what was asked for */
export function serveApi(source: ApiSource, onRefused: (request: IncomingMessage, reason: string) => void): Api {
  return {
    handle(request, response) {
      const [path = ''] = (request.url ?? '').split('?', 1);
      if (!path.startsWith('/api/')) return false;
      void answerTo(source, path, request).then(({ status, body, headers }) => {
        if (status === 401 || status === 403) onRefused(request, Object.values(body).join());
        const text = JSON.stringify(body);
        response.writeHead(status, { ...HEADERS, 'Content-Length': Buffer.byteLength(text), ...headers });
        response.end(request.method === 'HEAD' ? undefined : text);
      });
      return true;
    },
  };
}
