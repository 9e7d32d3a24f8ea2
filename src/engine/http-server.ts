/**
 * A coordinator's HTTP port: WebSockets for peers in browsers, what `http-api.ts` tells, the dashboard, and the files of a page, if it is to serve one. Files
 * are read when it starts, and only what was read is served. The dashboard's hold no secrets: what it shows it asks for as whoever looks at it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ArgumentError } from '../errors.ts';
import { type HttpDoor, HttpEntrance } from '../transport/http-entrance.ts';
import type { Connection } from '../transport/transport.ts';
import { acceptWebSockets, formatUrl } from '../transport/websocket-node.ts';
import { MAX_HANDSHAKE_BYTES } from '../wire/limits.ts';
import { type ApiSource, isOfThisMachine, serveApi } from './http-api.ts';

/** A coordinator's HTTP port: peers in browsers, observers, and files for them. */
export interface CoordinatorHttpOptions {
  /** 0 takes a free one. */
  readonly port: number;
  /** Address to listen on. Anything but loopback requires a token. @default that of the coordinator */
  readonly host?: string;
  /** A folder whose files are served, without those of folders in it; `index.html` at the root. @default none */
  readonly folder?: string;
  /** How many members of each run have series of their own in `/metrics`; sums over sites and runs count all. @default 64 */
  readonly peerSeries?: number;
}

export interface HttpListener {
  /** `http://host:port`, or `https:` where it has a certificate; without a slash at the end. */
  readonly url: string;
  close(): Promise<void>;
}

/** Bytes of a folder: it is kept in memory. */
const MAX_FOLDER_BYTES: number = 256 * 1024 * 1024;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

/** With the first two a page is cross-origin isolated, and has shared memory and exact clocks. */
const HEADERS: Readonly<Record<string, string>> = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-cache',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
};

/** The dashboard takes nothing from elsewhere, and is part of no other page. */
const DASHBOARD_HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'X-Frame-Options': 'DENY',
};

/** What the build puts together from `dashboard/`. */
const DASHBOARD_FOLDER: string = fileURLToPath(new URL('../../dashboard/', import.meta.url));
const DASHBOARD = '/dashboard';

/** As `peerSeries`. */
const PEER_SERIES = 64;

interface ServedFile {
  readonly headers?: Readonly<Record<string, string>>;
  readonly type: string;
  readonly bytes: Buffer;
}

function readFolder(folder: string): Map<string, ServedFile> {
  const files = new Map<string, ServedFile>();
  let total = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = readFileSync(join(folder, entry.name));
    total += bytes.length;
    if (total > MAX_FOLDER_BYTES)
      throw new ArgumentError(`The files in ${folder} are too large to be served from memory.`);
    files.set(`/${entry.name}`, { type: TYPES[extname(entry.name)] ?? 'application/octet-stream', bytes });
  }
  const index = files.get('/index.html');
  if (index !== undefined) files.set('/', index);
  return files;
}

/** The files of the dashboard as they are asked for; none where nothing was built, as in a checkout. */
function readDashboard(): Map<string, ServedFile> {
  const files = new Map<string, ServedFile>();
  if (!existsSync(DASHBOARD_FOLDER)) return files;
  for (const [path, file] of readFolder(DASHBOARD_FOLDER)) {
    const at = path === '/' ? DASHBOARD : `${DASHBOARD}${path}`;
    files.set(at, { ...file, headers: DASHBOARD_HEADERS });
  }
  return files;
}

function answer(files: ReadonlyMap<string, ServedFile>, request: IncomingMessage, response: ServerResponse): void {
  const say = (status: number, text: string) =>
    response.writeHead(status, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    say(405, 'There is nothing here but files to read.');
    return;
  }
  const file = files.get((request.url ?? '/').split('?', 1)[0]!); // split gives at least one
  if (file === undefined) {
    say(
      404,
      'This is a Skein coordinator: peers reach it by WebSocket, and /dashboard shows it. There is no such file.',
    );
    return;
  }
  response.writeHead(200, {
    ...HEADERS,
    ...file.headers,
    'Content-Type': file.type,
    'Content-Length': file.bytes.length,
  });
  response.end(request.method === 'HEAD' ? undefined : file.bytes);
}

/**
 * Pages of any origin can open WebSockets to this machine. Where there is a token they must know it; where there is none, only
 * pages that came from this machine may.
 */
export function allowsOrigin(origin: string | undefined, hasToken: boolean): boolean {
  if (hasToken || origin === undefined) return true;
  return isOfThisMachine(origin);
}

/**
 * @throws ArgumentError when the folder can't be read or is too large
 * @throws ConnectError when the port is taken
 */
export async function serveHttp(
  { port, host, folder, peerSeries = PEER_SERIES }: CoordinatorHttpOptions & { readonly host: string },
  door: HttpDoor,
  source: ApiSource,
  onConnection: (connection: Connection) => void,
): Promise<HttpListener> {
  if (!Number.isInteger(peerSeries) || peerSeries < 0)
    throw new ArgumentError(`\`http.peerSeries\` must be a whole number from 0 on, not ${peerSeries}.`);
  let files = new Map<string, ServedFile>();
  try {
    if (folder !== undefined) files = readFolder(folder);
  } catch (error) {
    if (error instanceof ArgumentError) throw error;
    throw new ArgumentError(`The folder ${folder} can't be served: ${error instanceof Error ? error.message : error}.`);
  }
  files = new Map([...readDashboard(), ...files]);
  const http = createServer({ maxHeaderSize: MAX_HANDSHAKE_BYTES }, (request, response) => {
    if (!api.handle(request, response)) answer(files, request, response);
  });
  const api = serveApi(source, peerSeries, {
    onRefused: ({ socket }, reason) => entrance.tell(socket, reason),
    onListener: ({ socket }) => entrance.release(socket),
  });
  const entrance = new HttpEntrance(http, door);
  acceptWebSockets(http, (origin) => allowsOrigin(origin, source.secret !== ''), onConnection, entrance);
  const listener = await entrance.listen(host, port);
  return {
    url: formatUrl(door.certificate === null ? 'http' : 'https', host, listener.port),
    close: () => {
      api.close();
      return listener.close();
    },
  };
}
