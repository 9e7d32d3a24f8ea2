/**
 * A coordinator's HTTP port: WebSockets for peers in browsers, what `http-api.ts` tells, and the files of a page, if it is to serve one. The files are read
 * when it starts, and only what was read is served.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { extname, join } from 'node:path';
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

interface ServedFile {
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

function answer(files: ReadonlyMap<string, ServedFile>, request: IncomingMessage, response: ServerResponse): void {
  const say = (status: number, text: string) =>
    response.writeHead(status, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    say(405, 'There is nothing here but files to read.');
    return;
  }
  const file = files.get((request.url ?? '/').split('?', 1)[0]!); // split gives at least one
  if (file === undefined) {
    say(404, 'This is a Skein coordinator: peers reach it by WebSocket. There is no such file.');
    return;
  }
  response.writeHead(200, { ...HEADERS, 'Content-Type': file.type, 'Content-Length': file.bytes.length });
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
  { port, host, folder }: CoordinatorHttpOptions & { readonly host: string },
  door: HttpDoor,
  source: ApiSource,
  onConnection: (connection: Connection) => void,
): Promise<HttpListener> {
  let files = new Map<string, ServedFile>();
  try {
    if (folder !== undefined) files = readFolder(folder);
  } catch (error) {
    if (error instanceof ArgumentError) throw error;
    throw new ArgumentError(`The folder ${folder} can't be served: ${error instanceof Error ? error.message : error}.`);
  }
  const http = createServer({ maxHeaderSize: MAX_HANDSHAKE_BYTES }, (request, response) => {
    if (!api.handle(request, response)) answer(files, request, response);
  });
  const api = serveApi(source, ({ socket }, reason) => entrance.tell(socket, reason));
  const entrance = new HttpEntrance(http, door);
  acceptWebSockets(http, (origin) => allowsOrigin(origin, source.secret !== ''), onConnection, entrance);
  const listener = await entrance.listen(host, port);
  return {
    url: formatUrl(door.certificate === null ? 'http' : 'https', host, listener.port),
    close: () => listener.close(),
  };
}
