/** A coordinator's HTTP port: what it serves, whom it lets in, and a peer that comes by it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { Coordinator, type CoordinatorListenOptions, join } from 'skein';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { allowsOrigin } from '../../src/engine/http-server.ts';

let folder = '';

beforeEach(() => {
  folder = mkdtempSync(joinPath(tmpdir(), 'skein-http-'));
  writeFileSync(joinPath(folder, 'index.html'), '<!doctype html>');
  writeFileSync(joinPath(folder, 'a.wasm'), 'wasm');
  mkdirSync(joinPath(folder, 'inner'));
  writeFileSync(joinPath(folder, 'inner', 'secret.html'), 'secret');
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function listen(options: CoordinatorListenOptions = {}): Promise<Coordinator> {
  return Coordinator.listen({ port: 0, http: { port: 0, folder }, ...options });
}

/** Sends bytes as they are, and returns the first line of the answer. */
function ask(address: string, lines: readonly string[]): Promise<string> {
  const { hostname, port } = new URL(address);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(`${lines.join('\r\n')}\r\n\r\n`));
    socket.setTimeout(5_000, () => reject(new Error('no answer within 5 s')));
    socket.once('error', reject);
    socket.once('data', (bytes) => {
      resolve(bytes.toString().split('\r\n')[0]!);
      socket.destroy();
    });
  });
}

describe('files', () => {
  test('of the folder are served, with the headers that isolate a page', async () => {
    await using coordinator = await listen();
    const page = await fetch(`${coordinator.httpAddress}/?x`);
    expect([page.status, await page.text()]).toEqual([200, '<!doctype html>']);
    expect(page.headers.get('cross-origin-opener-policy')).toBe('same-origin');
    expect(page.headers.get('cross-origin-embedder-policy')).toBe('require-corp');
    const wasm = await fetch(`${coordinator.httpAddress}/a.wasm`);
    expect([wasm.headers.get('content-type'), await wasm.text()]).toEqual(['application/wasm', 'wasm']);
  });

  test('outside of it, or in folders of it, are not', async () => {
    await using coordinator = await listen();
    for (const path of ['/inner/secret.html', '/inner', '/../etc/passwd', '/%2e%2e/etc/passwd', '//index.html']) {
      const first = await ask(coordinator.httpAddress!, [`GET ${path} HTTP/1.1`, 'Host: x']);
      expect(first, path).toBe('HTTP/1.1 404 Not Found');
    }
    const posted = await fetch(`${coordinator.httpAddress}/`, { method: 'POST', body: 'x' });
    expect(posted.status).toBe(405);
  });

  test('are none unless a folder is given', async () => {
    await using coordinator = await listen({ http: { port: 0 } });
    expect((await fetch(`${coordinator.httpAddress}/`)).status).toBe(404);
  });
});

describe('pages of other origins', () => {
  test.each([
    [undefined, false, true],
    ['http://127.0.0.1:7401', false, true],
    ['http://localhost:3000', false, true],
    ['http://[::1]:3000', false, true],
    ['https://evil.example', false, false],
    ['http://127.0.0.1.evil.example', false, false],
    ['null', false, false],
    ['https://evil.example', true, true],
  ])('origin %s, token %s: %s', (origin, hasToken, allowed) => {
    expect(allowsOrigin(origin, hasToken)).toBe(allowed);
  });

  test('can open no WebSocket where there is no token', async () => {
    await using coordinator = await listen();
    const upgrade = (origin: string) =>
      ask(coordinator.httpAddress!, [
        'GET / HTTP/1.1',
        'Host: 127.0.0.1',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
        `Origin: ${origin}`,
      ]);
    expect(await upgrade('https://evil.example')).toBe('HTTP/1.1 403 Forbidden');
    expect(await upgrade('http://localhost:8080')).toBe('HTTP/1.1 101 Switching Protocols');
  });
});

describe('a peer', () => {
  test('joins by ws:// as by tcp://', async () => {
    await using coordinator = await listen({ token: 'a-secret-of-this-test' });
    const options = { token: 'a-secret-of-this-test', engine: 'inline', startWorldSize: 2, timeout: 20_000 } as const;
    const [byWeb, byTcp] = await Promise.all([
      join(coordinator.httpAddress!.replace(/^http/, 'ws'), options),
      join(coordinator.address, options),
    ]);
    const tensors = [new Float32Array(1_000).fill(1), new Float32Array(1_000).fill(2)] as const;
    await Promise.all([byWeb.allReduce(tensors[0]), byTcp.allReduce(tensors[1])]);
    expect(tensors[0]).toEqual(new Float32Array(1_000).fill(3));
    expect(tensors[1]).toEqual(tensors[0]);
    await Promise.all([byWeb.leave(), byTcp.leave()]);
  });

  test('with a wrong token is refused', async () => {
    await using coordinator = await listen({ token: 'a-secret-of-this-test' });
    const address = coordinator.httpAddress!.replace(/^http/, 'ws');
    await expect(join(address, { token: 'another', engine: 'inline' })).rejects.toMatchObject({
      code: 'SKEIN_UNAUTHORIZED',
    });
  });

  test('finds nobody at an HTTP server that is no coordinator', async () => {
    await using coordinator = await listen();
    const address = `${coordinator.address.replace(/^tcp/, 'ws')}/`;
    await expect(join(address, { engine: 'inline' })).rejects.toMatchObject({ code: 'SKEIN_CONNECT' });
  });

  test('notices that its coordinator was closed', async () => {
    const coordinator = await listen();
    const group = await join(coordinator.httpAddress!.replace(/^http/, 'ws'), { engine: 'inline', timeout: 20_000 });
    const lost = new Promise((resolve) => group.on('coordinator-lost', resolve));
    await coordinator.close();
    await lost;
    await group.leave();
  });
});

describe('a coordinator', () => {
  test('does not listen beyond loopback on HTTP without a token', async () => {
    await expect(listen({ http: { port: 0, host: '0.0.0.0' } })).rejects.toMatchObject({ code: 'SKEIN_ARGUMENT' });
  });

  test('does not start when its HTTP port is taken, and leaves nothing open', async () => {
    await using first = await listen();
    const port = Number(new URL(first.httpAddress!).port);
    const second = await listen({ http: { port } }).catch((error: unknown) => error);
    expect(second).toMatchObject({ code: 'SKEIN_CONNECT' });
    const own = Number(new URL(first.address).port);
    const third = await Coordinator.listen({ port: own, http: { port } }).catch((error: unknown) => error);
    expect(third).toMatchObject({ code: 'SKEIN_CONNECT' });
  });

  test('says which folder it can not serve', async () => {
    const error = await listen({ http: { port: 0, folder: '/nowhere/at/all' } }).catch((error: unknown) => error);
    expect(error).toMatchObject({ code: 'SKEIN_ARGUMENT' });
    expect(String(error)).toContain('/nowhere/at/all');
  });
});
