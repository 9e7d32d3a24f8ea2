/** A coordinator's HTTPS port: what it shows, whom it lets in, and whoever stands before it. */
import { once } from 'node:events';
import { createServer, get } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import { Coordinator, type CoordinatorListenOptions, type JoinOptions, join } from '../../src/index.ts';
import { TestAuthority } from '../harness/certificates.ts';
import { requireOpenssl } from '../harness/requirements.ts';

const HOST = '127.0.0.1';
const TOKEN = 'a token of this test';

const closing: (() => unknown)[] = [];
let authority: TestAuthority;
let own: ReturnType<TestAuthority['issue']>;

beforeEach((context) => {
  requireOpenssl(context);
  authority ??= new TestAuthority();
  own ??= authority.issue(HOST);
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function listen(options: CoordinatorListenOptions = {}) {
  const notes: string[] = [];
  const coordinator = await Coordinator.listen({
    port: 0,
    http: { port: 0 },
    token: TOKEN,
    ...own,
    onNote: (line) => notes.push(line),
    ...options,
  });
  closing.push(() => coordinator.close());
  const { port } = new URL(coordinator.httpAddress!); // it has one
  return { coordinator, notes, port: Number(port), web: coordinator.httpAddress!.replace(/^http/, 'ws') };
}

const PEER: JoinOptions = { token: TOKEN, engine: 'inline', timeout: 20_000, transports: ['tcp'] };

async function failure(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  return promise.then(
    () => expect.unreachable('it succeeded'),
    (error: { code: string; message: string }) => error,
  );
}

describe('with a certificate, the HTTP port', () => {
  test('is HTTPS, by TLS 1.3 and nothing older', async () => {
    const { coordinator, port } = await listen();
    expect(coordinator.httpAddress).toBe(`https://${HOST}:${port}`);
    const request = get(coordinator.httpAddress!, { ca: own.ca, agent: false });
    const [response] = await once(request, 'response');
    expect((response.socket as TLSSocket).getProtocol()).toBe('TLSv1.3');
    expect(response.statusCode).toBe(404);
    response.resume();
    const old = connectTls({ host: HOST, port, ca: own.ca, maxVersion: 'TLSv1.2' });
    const [error] = await once(old, 'error');
    expect(String(error)).toContain('alert protocol version');
  });

  test('says so to who speaks HTTP in the clear, and notes it', async () => {
    const { port, notes } = await listen();
    const response = await fetch(`http://${HOST}:${port}/`);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain('https://');
    expect(notes).toEqual([expect.stringMatching(/^http 127\.0\.0\.1:\d+ was refused: it does not speak TLS/)]);
  });

  test('notes whose handshake fails, and keeps nobody who begins with too much', async () => {
    const { port, notes } = await listen();
    const old = connectTls({ host: HOST, port, maxVersion: 'TLSv1.2' });
    await once(old, 'error');
    const long = connect({ host: HOST, port }, () => long.write(Uint8Array.of(0x16, 3, 1, 0xff, 0xff)));
    long.resume().on('error', () => {});
    await once(long, 'close');
    await expect.poll(() => notes).toHaveLength(2);
    expect(notes.join('\n')).toMatch(/TLS handshake with it failed/);
    expect(notes.join('\n')).toMatch(/begins with too much/);
  });
});

describe('a peer in Node', () => {
  test('joins by wss:// whoever has joined by tcp://', async () => {
    const { coordinator, web } = await listen();
    const options = { ...PEER, ...authority.issue(HOST), startWorldSize: 2 };
    const groups = await Promise.all([join(web, options), join(coordinator.address, options)]);
    const tensors = await Promise.all(
      groups.map(async (group, index) => {
        const tensor = new Float32Array(1_000).fill(index + 1);
        await group.allReduce(tensor);
        return tensor;
      }),
    );
    for (const tensor of tensors) expect(tensor).toEqual(new Float32Array(1_000).fill(3));
    await Promise.all(groups.map((group) => group.leave()));
  });

  test('does not believe a certificate of another authority, or for another host', async () => {
    const { web } = await listen();
    const stranger = new TestAuthority().issue(HOST);
    const byOther = await failure(join(web, { ...PEER, ...stranger }));
    expect(byOther).toMatchObject({ code: 'SKEIN_UNAUTHORIZED', message: expect.stringContaining('check `ca`') });
    const elsewhere = await listen(authority.issue('127.0.0.2'));
    const forOther = await failure(join(elsewhere.web, { ...PEER, ...own }));
    expect(forOther).toMatchObject({ code: 'SKEIN_UNAUTHORIZED', message: expect.stringContaining('for this host') });
    const unknown = await failure(join(web, PEER));
    expect(unknown.code, 'without `ca` the authorities of the system count').toBe('SKEIN_UNAUTHORIZED');
  });

  test('needs the token as well', async () => {
    const { web } = await listen();
    const error = await failure(join(web, { ...PEER, ...own, token: 'another' }));
    expect(error.code).toBe('SKEIN_UNAUTHORIZED');
  });
});

/** Ends TLS with a good certificate, and passes on each message, perhaps changed. */
async function standBetween(web: string, change: (message: Buffer) => Buffer) {
  const server = createServer({ ...authority.issue(HOST) });
  const said: string[] = [];
  new WebSocketServer({ server }).on('connection', (near) => {
    const far = new WebSocket(web, { ca: own.ca });
    const open = once(far, 'open');
    const forward = (from: WebSocket, to: WebSocket, name: string) => {
      from.on('message', (data: RawData, isBinary) => {
        const bytes = data as Buffer; // the default of `ws`
        if (isBinary) said.push(`${name}: ${/challenge|hello|prove|refuse/.exec(bytes.toString('latin1'))?.[0]}`);
        void open.then(() => to.send(isBinary ? change(bytes) : bytes.toString()));
      });
      from.on('close', () => to.terminate());
      from.on('error', () => {});
    };
    forward(near, far, 'peer');
    forward(far, near, 'coordinator');
  });
  await new Promise<void>((resolve) => void server.listen(0, HOST, resolve));
  closing.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { said, web: `wss://${HOST}:${(server.address() as AddressInfo).port}` };
}

/** In msgpack: the key, and what it says. */
const BOUND = Buffer.from([0xa5, ...Buffer.from('bound'), 0xc3]);
const UNBOUND = Buffer.from([0xa5, ...Buffer.from('bound'), 0xc2]);

test.each([
  ['passes on its words', (message: Buffer) => message],
  [
    'says for it that it asks for no binding',
    (message: Buffer) => {
      const at = message.indexOf(BOUND);
      return at < 0 ? message : Buffer.concat([message.subarray(0, at), UNBOUND, message.subarray(at + BOUND.length)]);
    },
  ],
])('a peer with certificates gives no proof to somebody with a good one who %s', async (_, change) => {
  const { web } = await listen();
  const middle = await standBetween(web, change);
  const error = await failure(join(middle.web, { ...PEER, ...own }));
  expect(error.code).toBe('SKEIN_UNAUTHORIZED');
  expect(error.message).toContain('somebody stands in the middle: perhaps a proxy');
  expect(middle.said).toEqual(['peer: hello', 'coordinator: challenge']);
  const group = await join(web, { ...PEER, ...own });
  await group.leave();
});
