/** What every store promises, on each of them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, onTestFinished, type TestContext, test } from 'vitest';
import { ArgumentError } from '../../src/errors.ts';
import { EtcdStore, parseEtcd } from '../../src/store/etcd.ts';
import type { EtcdAccess } from '../../src/store/etcd-access.ts';
import { fileStore } from '../../src/store/file.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { type Store, StoreError } from '../../src/store/store.ts';
import { systemClock } from '../../src/transport/clock.ts';
import { TestAuthority } from '../harness/certificates.ts';
import { Etcd } from '../harness/etcd.ts';
import { requireEtcd } from '../harness/requirements.ts';

const PATIENCE_MS = 20_000;

let etcd: Promise<Etcd> | null = null;
let guarded: Promise<Guarded> | null = null;
let stores = 0;

/** One that asks for a certificate and a password; tokens end after a second in which they are not used. */
interface Guarded {
  readonly etcd: Etcd;
  readonly access: Required<EtcdAccess>;
}

async function startGuarded(): Promise<Guarded> {
  const authority = new TestAuthority();
  const started = await Etcd.start(1, { certificates: authority.issue('127.0.0.1'), tokenSeconds: 1 });
  const user = { user: 'skein', password: 'word "ü"' };
  await started.demandPasswords(user.user, user.password, 'store-');
  // etcd's gateway takes no certificate of a client that has a common name.
  return { etcd: started, access: { ...user, ...authority.issue('127.0.0.1', '/O=coordinators') } };
}

afterAll(async () => {
  await (await etcd)?.[Symbol.asyncDispose]();
  await (await guarded)?.etcd[Symbol.asyncDispose]();
});

const DRIVERS: Readonly<Record<string, (context: TestContext) => Promise<Store>>> = {
  memory: async () => new MemoryStore(systemClock, true),
  async file() {
    const folder = mkdtempSync(`${tmpdir()}/skein-store-`);
    onTestFinished(() => rmSync(folder, { recursive: true }));
    return fileStore(`${folder}/store`);
  },
  async etcd(context) {
    requireEtcd(context);
    etcd ??= Etcd.start(1);
    stores += 1;
    return new EtcdStore((await etcd).urls, { prefix: `store-${stores}/`, callMs: 10_000 });
  },
  async 'etcd, with a password and certificates'(context) {
    requireEtcd(context);
    guarded ??= startGuarded();
    stores += 1;
    const { etcd, access } = await guarded;
    return new EtcdStore(etcd.urls, { prefix: `store-${stores}/`, callMs: 10_000, access });
  },
};

describe.each(Object.keys(DRIVERS))('a store in %s', (name) => {
  async function open(context: TestContext): Promise<Store> {
    const store = await DRIVERS[name]!(context);
    onTestFinished(() => store.close());
    return store;
  }

  test('keeps what is put, tells when it came to be and changed, and lists it by prefix', async (context) => {
    const store = await open(context);
    expect(await store.get('runs/a')).toBeNull();
    const first = await store.commit(
      [],
      [
        { put: 'runs/b', value: 'grün' },
        { put: 'runs/a', value: '' },
        { put: 'rut', value: 'x' },
      ],
    );
    const second = await store.commit([], [{ put: 'runs/a', value: '2' }]);
    expect(second!).toBeGreaterThan(first!);
    expect(await store.list('runs/')).toEqual([
      { key: 'runs/a', value: '2', created: first, modified: second },
      { key: 'runs/b', value: 'grün', created: first, modified: first },
    ]);
    await store.commit([], [{ delete: 'runs/a' }]);
    const third = await store.commit([], [{ put: 'runs/a', value: '3' }]);
    expect(await store.get('runs/a')).toEqual({ key: 'runs/a', value: '3', created: third, modified: third });
  });

  test('changes all or nothing, and only where every guard holds', async (context) => {
    const store = await open(context);
    const first = (await store.commit([{ key: 'a', created: 0 }], [{ put: 'a', value: '1' }]))!;
    expect(await store.commit([{ key: 'a', created: 0 }], [{ put: 'a', value: '2' }])).toBeNull();
    expect(
      await store.commit(
        [
          { key: 'a', modified: first },
          { key: 'b', modified: first },
        ],
        [{ delete: 'a' }],
      ),
    ).toBeNull();
    const second = (await store.commit(
      [{ key: 'a', modified: first }],
      [
        { put: 'a', value: '3' },
        { put: 'b', value: '3' },
      ],
    ))!;
    expect(await store.commit([{ key: 'a', modified: first }], [{ put: 'a', value: '4' }])).toBeNull();
    const guards = [
      { key: 'a', created: first },
      { key: 'a', modified: second },
      { key: 'c', modified: 0 },
    ];
    expect(await store.commit(guards, [{ delete: 'a' }, { delete: 'missing' }])).not.toBeNull();
    expect((await store.list('')).map(({ key, value }) => [key, value])).toEqual([['b', '3']]);
  });

  test('of many that would make a key, one does', async (context) => {
    const store = await open(context);
    const attempts = Array.from({ length: 8 }, (_, index) =>
      store.commit([{ key: 'leader', created: 0 }], [{ put: 'leader', value: `${index}` }]),
    );
    expect((await Promise.all(attempts)).filter((revision) => revision !== null)).toHaveLength(1);
  });

  test('a key that is bound to a lease goes with it, and who watches it is told', async (context) => {
    const store = await open(context);
    const lease = await store.grant(2_000);
    expect(lease.ms).toBeGreaterThanOrEqual(2_000);
    const made = (await store.commit(
      [],
      [
        { put: 'leader', value: 'x', lease: lease.id },
        { put: 'other', value: 'y' },
      ],
    ))!;
    const { signal } = new AbortController();
    let told = false;
    const gone = store.changed('leader', made, PATIENCE_MS, signal).then(() => {
      told = true;
    });
    expect(await store.keepAlive(lease.id)).toEqual(lease);
    await store.commit([], [{ put: 'other', value: 'z' }]);
    expect(told).toBe(false);
    await store.revoke(lease.id);
    await gone;
    expect((await store.list('')).map(({ key }) => key)).toEqual(['other']);
    expect(await store.keepAlive(lease.id)).toBeNull();
    await store.revoke(lease.id);
    await expect(store.commit([], [{ put: 'leader', value: 'x', lease: lease.id }])).rejects.toThrow(StoreError);
    await store.changed('leader', made, PATIENCE_MS, signal); // it has changed already
  });

  test('a lease that nobody renews ends; a watch ends in its time, and when it is aborted', async (context) => {
    const store = await open(context);
    const lease = await store.grant(1_000);
    const made = (await store.commit([], [{ put: 'leader', value: 'x', lease: lease.id }]))!;
    const abort = new AbortController();
    await store.changed('leader', made, 10, abort.signal);
    expect(await store.get('leader')).not.toBeNull();
    const aborted = store.changed('other', 0, PATIENCE_MS, abort.signal);
    abort.abort();
    await aborted;
    await store.changed('leader', made, PATIENCE_MS, new AbortController().signal);
    expect(await store.get('leader')).toBeNull();
  });
});

describe('etcd', () => {
  test('that does not answer fails within the deadline, and the next member is asked', async (context) => {
    requireEtcd(context);
    etcd ??= Etcd.start(1);
    const nobody = 'http://127.0.0.1:9';
    const store = new EtcdStore([nobody, ...(await etcd).urls], { prefix: 'turns/', callMs: 10_000 });
    await expect(store.get('a')).rejects.toThrow(/etcd at http:\/\/127.0.0.1:9 failed at kv\/range \(fetch failed/);
    expect(await store.get('a')).toBeNull();
  });

  test('that asks for a password and a certificate is told why somebody is refused, and goes on with new tokens', async (context) => {
    requireEtcd(context);
    guarded ??= startGuarded();
    const { etcd, access } = await guarded;
    const open = (access: EtcdAccess, prefix = 'store-own/') => {
      const store = new EtcdStore(etcd.urls, { prefix, callMs: 10_000, access });
      onTestFinished(() => store.close());
      return store;
    };
    const { user, password, ca, cert, key } = access;
    await expect(open({ ca, cert, key, user, password: 'wrong' }).get('a')).rejects.toThrow(
      /invalid user ID or password/,
    );
    await expect(open({ ca, cert, key }).get('a')).rejects.toThrow(/user name is empty|permission denied/);
    await expect(open({ ca, user, password }).get('a')).rejects.toThrow(/certificate|handshake|EPROTO|socket/i);
    await expect(open({ user, password }).get('a')).rejects.toThrow(/certificate/);
    await expect(open(access, 'elsewhere/').get('a')).rejects.toThrow(/permission denied/);
    const denied = open(access, 'elsewhere/').changed('a', 0, PATIENCE_MS, new AbortController().signal);
    await expect(denied).rejects.toThrow(/ended the watch/);
    const store = open(access);
    await store.commit([], [{ put: 'a', value: '1' }]);
    const { signal } = new AbortController();
    const made = (await store.get('a'))!.modified;
    await delay(2_500);
    // The token has ended: a watch says so, and whatever is asked next has another one.
    await expect(store.changed('a', made, PATIENCE_MS, signal)).rejects.toThrow(/ended the watch/);
    const changed = store.changed('a', made, PATIENCE_MS, signal);
    await store.commit([{ key: 'a', modified: made }], [{ put: 'a', value: '2' }]);
    await changed;
    await delay(2_500);
    expect((await store.get('a'))!.value).toBe('2');
  });

  test('is refused what does not go together', () => {
    const open = (access: EtcdAccess, url = 'https://a:2379') =>
      new EtcdStore([url], { prefix: 'x/', callMs: 1_000, access });
    expect(() => open({ user: 'a' })).toThrow(ArgumentError);
    expect(() => open({ password: 'a' })).toThrow(/password, and a password a user/);
    expect(() => open({ cert: 'a' })).toThrow(/needs its private key/);
    expect(() => open({ ca: 'a' }, 'http://a:2379')).toThrow(/is in the clear/);
  });

  test('is named by the URLs of its members', () => {
    expect(parseEtcd('http://a:2379,https://b.example:2379/')).toEqual({
      endpoints: ['http://a:2379', 'https://b.example:2379'],
      prefix: 'skein/',
    });
    expect(parseEtcd('http://a:2379?prefix=lab/x').prefix).toBe('lab/x/');
    for (const wrong of ['', 'a:2379', 'http://', 'http://a,b', 'http://a/?prefix=', 'http://user:word@a:1'])
      expect(() => parseEtcd(wrong), wrong).toThrow(/names no etcd/);
  });
});
