/** What a coordinator's HTTP port tells those who look on, and does for administrators: and for nobody else. */
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { request as requestSecurely } from 'node:https';
import { Coordinator, type CoordinatorListenOptions, EvictedError, type JoinOptions, join, makePass } from 'skein';
import { describe, expect, test } from 'vitest';
import { TestAuthority } from '../harness/certificates.ts';
import { requireOpenssl } from '../harness/requirements.ts';

const SECRET = 'of the coordinator';
const PEER: JoinOptions = { token: SECRET, engine: 'inline', transports: ['tcp'], timeout: 20_000 };

function listen(options: CoordinatorListenOptions = {}): Promise<Coordinator> {
  return Coordinator.listen({ port: 0, token: SECRET, http: { port: 0 }, ...options });
}

interface Asked {
  readonly token?: string;
  readonly method?: string;
  readonly body?: string | object;
  readonly headers?: Record<string, string>;
  readonly ca?: string;
}

interface Answered {
  readonly status: number;
  // What a test looks at, it compares as a whole.
  readonly body: { readonly [key: string]: unknown; readonly error?: string };
  readonly headers: IncomingMessage['headers'];
}

async function ask(coordinator: Coordinator, path: string, asked: Asked = {}): Promise<Answered> {
  const { token, body, method = body === undefined ? 'GET' : 'POST', ca } = asked;
  const url = new URL(path, coordinator.httpAddress!); // it has one
  const headers = { ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }), ...asked.headers };
  const options = { method, headers, agent: false as const };
  const sent = ca === undefined ? request(url, options) : requestSecurely(url, { ...options, ca });
  sent.end(typeof body === 'object' ? JSON.stringify(body) : body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part;
  return { status: response.statusCode!, body: JSON.parse(text) as Answered['body'], headers: response.headers };
}

function state(coordinator: Coordinator, token: string): Promise<Answered> {
  return ask(coordinator, '/api/state', { token });
}

function dismiss(coordinator: Coordinator, token: string, peerId: string, run?: string): Promise<Answered> {
  return ask(coordinator, '/api/dismiss', { token, body: { peerId, run } });
}

const observer = makePass(SECRET, { role: 'observer' });
const admin = makePass(SECRET, { role: 'admin' });

test('an observer is told what a run looks like: members, newcomers, open collectives', async () => {
  await using coordinator = await listen();
  expect(await state(coordinator, observer)).toMatchObject({ status: 200, body: { runs: [] } });
  const groups = await Promise.all(
    ['eu', 'us'].map((site) => join(coordinator.address, { ...PEER, run: 'lm', site, startWorldSize: 2 })),
  );
  const [first, second] = [...groups].sort((left, right) => left.rank - right.rank) as [
    (typeof groups)[0],
    (typeof groups)[0],
  ];
  const coming = join(coordinator.address, { ...PEER, run: 'lm', site: 'new' });
  // The root holds what it sends; the other has not called.
  const sending = first.broadcast(new Float32Array(10), { root: first.peerId });
  const path = expect.stringMatching(/^tcp 127\.0\.0\.1:\d+$/);
  const member = ({ peerId, rank, members }: typeof first) =>
    expect.objectContaining({ peerId, rank, site: members[rank]!.site, path, steps: 1, lagMs: 0, slow: false });
  const id = expect.stringMatching(/^1:.*:\d+$/);
  await expect
    .poll(async () => (await state(coordinator, observer)).body, { timeout: 10_000 })
    .toEqual({
      coordinator: expect.objectContaining({ leads: true, leader: null, term: 1 }),
      runs: [
        expect.objectContaining({
          run: 'lm',
          term: 1,
          epoch: 1,
          generation: 1,
          recovering: false,
          members: [member(first), member(second)],
          joining: [{ peerId: expect.stringMatching(/^p2-/), site: 'new', path, state: 'ready' }],
          collectives: [{ id, held: 1, awaited: [second.peerId] }],
          openCollectives: 1,
          ring: expect.arrayContaining([first.peerId, second.peerId]),
          cuts: [],
        }),
      ],
    });
  await Promise.all([sending, second.broadcast(new Float32Array(10), { root: first.peerId })]);
  await Promise.all([first.admit(), second.admit()]);
  await Promise.all([...groups, await coming].map((group) => group.leave()));
});

describe('whom it tells nothing', () => {
  const HOUR_MS = 3_600_000;
  function forged(pass: string, change: object): string {
    const [prefix, claims, key] = pass.split('.') as [string, string, string];
    const read = JSON.parse(Buffer.from(claims, 'base64url').toString()) as object;
    return [prefix, Buffer.from(JSON.stringify({ ...read, ...change })).toString('base64url'), key].join('.');
  }

  test.each<[string, string | undefined, number, RegExp]>([
    ['nobody', undefined, 401, /Authorization: Bearer/],
    ['an empty token', '', 401, /Authorization: Bearer|wrong/],
    ['a wrong token', 'guessed', 401, /wrong/],
    ['the start of the token', SECRET.slice(0, -1), 401, /wrong/],
    ['a pass from another secret', makePass('guessed', { role: 'admin' }), 401, /wrong/],
    ['a pass that has expired', makePass(SECRET, { role: 'admin' }, Date.now() - 2 * HOUR_MS), 401, /was good until/],
    ['an observer who calls itself an admin', forged(observer, { role: 'admin' }), 401, /wrong/],
    ['a pass cut short', admin.slice(0, -2), 401, /wrong/],
    ['claims alone', 'skein1.e30.', 401, /wrong/],
    ['a peer', makePass(SECRET), 403, /for the role peer/],
    ['a pass that is good once', makePass(SECRET, { role: 'observer', once: true }), 403, /good once/],
  ])('%s', async (_, token, status, error) => {
    const notes: string[] = [];
    await using coordinator = await listen({ onNote: (line) => notes.push(line) });
    for (const [path, body] of [['/api/state'], ['/api/dismiss', { peerId: 'p0' }], ['/api/else']] as const) {
      const asked = { ...(token === undefined ? {} : { token }), ...(body === undefined ? {} : { body }) };
      const answer = await ask(coordinator, path, asked);
      expect(answer).toMatchObject({ status, body: { error: expect.stringMatching(error) } });
      if (status === 401) expect(answer.headers['www-authenticate']).toMatch(/^Bearer/);
      expect(answer.headers['cache-control']).toBe('no-store');
    }
    expect(notes).toHaveLength(3);
    for (const line of notes) expect(line).toMatch(/^http 127\.0\.0\.1:\d+ was refused: /);
    for (const line of notes) if (token !== undefined && token !== '') expect(line).not.toContain(token);
  });

  test('a pass for one run is told of no other, and dismisses nobody there', async () => {
    await using coordinator = await listen();
    const groups = await Promise.all(['lm', 'other'].map((run) => join(coordinator.address, { ...PEER, run })));
    const [lm, other] = groups as [(typeof groups)[0], (typeof groups)[0]];
    const pass = makePass(SECRET, { role: 'admin', run: 'lm' });
    const { body } = await state(coordinator, pass);
    expect(body['runs']).toEqual([expect.objectContaining({ run: 'lm' })]);
    expect(await dismiss(coordinator, pass, other.peerId)).toMatchObject({ status: 404 });
    expect(await dismiss(coordinator, pass, other.peerId, 'other')).toMatchObject({
      status: 403,
      body: { error: 'This pass is for the run lm.' },
    });
    expect(coordinator.status()['other']?.members).toEqual([other.peerId]);
    expect(await dismiss(coordinator, pass, lm.peerId)).toMatchObject({ status: 200 });
    await other.leave();
    await lm.leave();
  });
});

test('an administrator dismisses a member: it is told so, and the others go on', async () => {
  await using coordinator = await listen();
  const groups = await Promise.all([1, 2, 3].map(() => join(coordinator.address, { ...PEER, startWorldSize: 3 })));
  const [first, second, gone] = groups as [(typeof groups)[0], (typeof groups)[0], (typeof groups)[0]];
  const seen = new Promise((resolve) => first.on('peer-lost', resolve));
  expect(await dismiss(coordinator, observer, gone.peerId)).toMatchObject({
    status: 403,
    body: { error: expect.stringContaining('role admin') },
  });
  expect(coordinator.status()['default']?.members).toHaveLength(3);
  const { status, body } = await dismiss(coordinator, admin, gone.peerId);
  expect([status, body]).toEqual([200, { dismissed: gone.peerId, run: 'default' }]);
  expect(await seen).toMatchObject({ peerId: gone.peerId, reason: 'it was dismissed by an administrator' });
  const call = gone.allReduce(new Float32Array(10));
  await expect(call).rejects.toThrow(EvictedError);
  await expect(call).rejects.toThrow(/dismissed by an administrator/);
  const tensors = [new Float32Array(10).fill(1), new Float32Array(10).fill(2)] as const;
  await Promise.all([first.allReduce(tensors[0]), second.allReduce(tensors[1])]);
  expect([...tensors[0], ...tensors[1]]).toEqual(new Array(20).fill(3));
  expect(await dismiss(coordinator, admin, gone.peerId)).toMatchObject({ status: 404 });
  await Promise.all(groups.map((group) => group.leave()));
});

test('the token itself may do everything, and a newcomer can be dismissed as well', async () => {
  await using coordinator = await listen();
  const coming = join(coordinator.address, { ...PEER, startWorldSize: 2 });
  coming.catch(() => {});
  const joining = async () => coordinator.status()['default']?.ready ?? [];
  await expect.poll(joining).toHaveLength(1);
  const [peerId] = await joining();
  expect(await dismiss(coordinator, SECRET, peerId!)).toMatchObject({ status: 200 });
  await expect(coming).rejects.toThrow(/dismissed by an administrator/);
});

describe('a request', () => {
  test.each<[string, string, Asked, number]>([
    ['that is no JSON', '/api/dismiss', { body: 'p0' }, 400],
    ['without a peer', '/api/dismiss', { body: {} }, 400],
    ['with more than that', '/api/dismiss', { body: { peerId: 'p0', all: true } }, 400],
    ['of a peer that is no text', '/api/dismiss', { body: { peerId: ['p0'] } }, 400],
    ['of a peer that is not there', '/api/dismiss', { body: { peerId: '__proto__' } }, 404],
    ['that is too long', '/api/dismiss', { body: { peerId: 'p'.repeat(5_000) } }, 413],
    ['by another method', '/api/dismiss', { method: 'GET' }, 405],
    ['to change the state', '/api/state', { method: 'POST', body: {} }, 405],
    ['for what there is not', '/api/', {}, 404],
  ])('%s is answered so', async (_, path, asked, status) => {
    await using coordinator = await listen();
    const answer = await ask(coordinator, path, { token: admin, ...asked });
    expect(answer.status).toBe(status);
    expect(typeof answer.body.error).toBe('string');
  });

  test('without a token is for this machine alone, whatever name leads to it', async () => {
    await using coordinator = await listen({ token: '' });
    const asked = async (headers: Record<string, string>) => (await ask(coordinator, '/api/state', { headers })).status;
    expect(await asked({})).toBe(200);
    expect(await asked({ Origin: 'http://localhost:3000' })).toBe(200);
    expect(await asked({ Origin: 'https://evil.example' })).toBe(403);
    expect(await asked({ Origin: 'null' })).toBe(403);
    expect(await asked({ Host: 'evil.example' })).toBe(403);
    expect(await asked({ Host: '127.0.0.1.evil.example:7401' })).toBe(403);
    const headers = { Origin: 'https://evil.example' };
    expect((await ask(coordinator, '/api/dismiss', { headers, body: { peerId: 'p0' } })).status).toBe(403);
  });

  test('goes by HTTPS where there is a certificate', async (context) => {
    requireOpenssl(context);
    const certificates = new TestAuthority().issue('127.0.0.1');
    await using coordinator = await listen(certificates);
    const { status, body } = await ask(coordinator, '/api/state', { token: observer, ca: certificates.ca });
    expect([status, body['runs']]).toEqual([200, []]);
  });
});
