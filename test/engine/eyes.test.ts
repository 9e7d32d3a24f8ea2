/** What a coordinator's HTTP port shows of its runs while they go on: figures for Prometheus, and the live feed. */
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { Coordinator, type CoordinatorListenOptions, type JoinOptions, makePass } from 'skein';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { CoordinatorClient } from '../../src/engine/coordinator-client.ts';
import { Feed } from '../../src/engine/feed.ts';
import type { ApiSource } from '../../src/engine/http-api.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { Timeline } from '../../src/eyes/timeline.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';
import { Members } from '../group/members.ts';
import { PEER_EXAMPLES } from '../wire/examples.ts';
import { type Family, readExposition } from './exposition.ts';

const TOKEN = 'of this test';
const PEER: JoinOptions = { engine: 'inline', transports: ['tcp'], run: 'lm' };

/** A name that would break lines and labels, if it were not escaped. */
const STRANGE_SITE = 'a "b" \\ c\nskein_run_members{run="lm"} 99';

async function metrics(coordinator: Coordinator, token?: string): Promise<Map<string, Family>> {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const response = await fetch(`${coordinator.httpAddress}/metrics`, { headers });
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  return readExposition(await response.text());
}

function figure(families: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const samples = [...families.values()].flatMap((family) => family.samples).filter((sample) => sample.name === name);
  const fits = samples.filter((sample) => Object.entries(labels).every(([key, text]) => sample.labels[key] === text));
  expect(fits, `${name} ${JSON.stringify(labels)}`).toHaveLength(1);
  return fits[0]!.value; // as was just seen
}

test('the strict reader takes what is right, and refuses what is not', () => {
  const good = '# HELP a_total All.\n# TYPE a_total counter\na_total{x="1\\"\\n"} 2\na_total{x="b,c"} 1e+21\n';
  expect(readExposition(good).get('a_total')?.samples).toEqual([
    { name: 'a_total', labels: { x: '1"\n' }, value: 2 },
    { name: 'a_total', labels: { x: 'b,c' }, value: 1e21 },
  ]);
  for (const bad of [
    good.slice(0, -1),
    good.replace('b,c', '1\\"\\n'),
    good.replace('counter', 'count'),
    good.replaceAll('a_total', 'a'),
    good.replace(' 2', ' two'),
    good.replace('\\n', '\n'),
    '# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n',
  ])
    expect(() => readExposition(bad), bad).toThrow();
});

describe('/metrics', () => {
  test("tells the coordinator's figures and the peers', in what Prometheus reads", async () => {
    await using members = await Members.form(3, { ...PEER, site: STRANGE_SITE }, { http: { port: 0, peerSeries: 2 } });
    const { coordinator, groups } = members;
    for (let call = 0; call < 5; call++)
      await members.all((group) => group.allReduce(new Float32Array(50_000).fill(1)));
    await members.all((group) => group.barrier());
    const all = { run: 'lm' };
    const done = (families: Map<string, Family>) =>
      families
        .get('skein_calls_total')
        ?.samples.find(({ labels }) => labels['kind'] === 'allReduce' && labels['outcome'] === 'done')?.value;
    await expect.poll(async () => done(await metrics(coordinator)), { timeout: 10_000 }).toBe(15);
    const families = await metrics(coordinator);
    expect(figure(families, 'skein_run_members', all)).toBe(3);
    expect(figure(families, 'skein_run_joins_total', all)).toBe(3);
    expect(figure(families, 'skein_run_collectives_committed_total', all)).toBe(6);
    expect(figure(families, 'skein_run_epoch', all)).toBe(groups[0]!.epoch);
    expect(figure(families, 'skein_call_seconds_count', { kind: 'allReduce' })).toBe(15);
    expect(figure(families, 'skein_call_bytes_total', { kind: 'allReduce', direction: 'sent' })).toBeGreaterThan(
      15 * 100_000,
    );
    expect(figure(families, 'skein_coordinator_leads')).toBe(1);
    expect(figure(families, 'skein_coordinator_connections')).toBe(3);
    expect(figure(families, 'skein_coordinator_messages_total', { direction: 'received' })).toBeGreaterThan(20);
    expect(figure(families, 'skein_coordinator_heap_bytes')).toBeGreaterThan(1e6);
    expect(figure(families, 'skein_site_members', { site: STRANGE_SITE })).toBe(3);
    // Two have series of their own, and the third is counted.
    expect(families.get('skein_peer_lag_seconds')?.samples.map(({ labels }) => labels['peer'])).toEqual(
      groups.slice(0, 2).map(({ peerId }) => peerId),
    );
    expect(figure(families, 'skein_run_members_without_series', all)).toBe(1);
    await groups[2]!.leave();
    const left = async () => figure(await metrics(coordinator), 'skein_run_losses_total', { cause: 'left' });
    await expect.poll(left).toBe(1);
  });

  test('is for observers, and a pass for one run is told of no other', async () => {
    await using members = await Members.form(1, { ...PEER, token: TOKEN }, { token: TOKEN, http: { port: 0 } });
    const url = `${members.coordinator.httpAddress}/metrics`;
    expect((await fetch(url)).status).toBe(401);
    const peer = { Authorization: `Bearer ${makePass(TOKEN)}` };
    expect((await fetch(url, { headers: peer })).status).toBe(403);
    expect((await fetch(url, { headers: { Authorization: `Bearer ${TOKEN}` }, method: 'POST' })).status).toBe(405);
    const own = await metrics(members.coordinator, makePass(TOKEN, { role: 'observer', run: 'lm' }));
    expect(figure(own, 'skein_run_members')).toBe(1);
    const other = await metrics(members.coordinator, makePass(TOKEN, { role: 'observer', run: 'other' }));
    expect(other.has('skein_run_members')).toBe(false);
  });

  test('changes nothing for one that counts backwards: it is cut off, and named', async () => {
    const notes: string[] = [];
    const options: CoordinatorListenOptions = { port: 0, http: { port: 0 }, onNote: (line) => notes.push(line) };
    await using coordinator = await Coordinator.listen(options);
    await using member = await bareMember(coordinator.address);
    const { figures } = PEER_EXAMPLES;
    member.send({ ...figures, open: 0 });
    const sum = async () => figure(await metrics(coordinator), 'skein_call_seconds_count');
    await expect.poll(sum).toBe(49_600);
    member.send({ ...figures, calls: [{ ...figures.calls[0]!, failed: 0 }] });
    await expect.poll(() => notes.join('\n')).toMatch(/was cut off: its figures of allReduce are smaller than before/);
    expect(await sum()).toBe(49_600);
  });

  test('refuses an option that makes no sense', async () => {
    await expect(Coordinator.listen({ port: 0, http: { port: 0, peerSeries: -1 } })).rejects.toThrow(/peerSeries/);
  });
});

/** One that has nothing but its control connection, and says what the test wants. */
async function bareMember(at: string): Promise<AsyncDisposable & { send(message: PeerMessage): void }> {
  const description = { hostKey: 'test', site: '', addresses: [], cores: 1 };
  const credentials = { run: 'bare', token: '', security: resolveSecurity({}, ''), startWorldSize: 1, name: '' };
  const client = await CoordinatorClient.connect(
    systemPlatform,
    [parseTcpAddress(at)],
    { ...credentials, description, transports: ['tcp'] },
    {
      onMessage: () => {},
      onLost: () => client.close(), // it does not come back
      onBack: () => {},
      onRefused: () => {},
      report: () => expect.unreachable('it does not come back'),
    },
  );
  client.send({ type: 'ready' });
  return { send: (message) => client.send(message), [Symbol.asyncDispose]: async () => client.close() };
}

interface Told {
  readonly event: string;
  // What a test looks at, it compares as a whole.
  readonly data: unknown;
}

/** Reads a feed until `isEnough`. */
async function listen(
  coordinator: Coordinator,
  query: string,
  token: string,
  isEnough: (told: readonly Told[]) => boolean,
): Promise<readonly Told[]> {
  const abort = new AbortController();
  const response = await fetch(`${coordinator.httpAddress}/api/events${query}`, {
    headers: { Authorization: `Bearer ${token}` },
    signal: AbortSignal.any([abort.signal, AbortSignal.timeout(15_000)]),
  });
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/event-stream']);
  const told: Told[] = [];
  let text = '';
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    const frames = (text + part).split('\n\n');
    text = frames.pop() ?? '';
    for (const frame of frames) {
      const [, event = '', data = ''] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? [];
      told.push({ event, data: JSON.parse(data) });
    }
    if (isEnough(told)) break;
  }
  abort.abort();
  return told;
}

describe('the live feed', () => {
  test('tells the last minutes, then each second how it is, and at once what happens', async () => {
    await using members = await Members.form(3, { ...PEER, token: TOKEN }, { token: TOKEN, http: { port: 0 } });
    const [, , last] = members.groups;
    const states = (told: readonly Told[]) => told.filter(({ event }) => event === 'state');
    let isAsked = false;
    const told = await listen(members.coordinator, '', makePass(TOKEN, { role: 'observer' }), (so) => {
      if (states(so).length === 2 && !isAsked) {
        isAsked = true;
        void last!.leave();
      }
      return so.some(({ event, data }) => event === 'happenings' && JSON.stringify(data).includes('"loss"'));
    });
    expect(told[0]).toMatchObject({ event: 'history', data: { run: 'lm', happenings: expect.any(Array) } });
    const { happenings } = told[0]!.data as { readonly happenings: { readonly kind: string }[] }; // as was just seen
    expect(happenings.map(({ kind }) => kind)).toEqual(['join', 'join', 'join', 'view']);
    expect(states(told)[0]).toMatchObject({ data: { runs: [{ run: 'lm', members: 3 }], run: { run: 'lm' } } });
    const happened = told.find(({ event }) => event === 'happenings');
    expect(happened?.data).toContainEqual(
      expect.objectContaining({ kind: 'loss', peerId: last!.peerId, text: 'left' }),
    );
  });

  test('is for those who may look, and ends when what they have shown is not good any more', async () => {
    await using members = await Members.form(1, { ...PEER, token: TOKEN }, { token: TOKEN, http: { port: 0 } });
    const url = `${members.coordinator.httpAddress}/api/events`;
    expect((await fetch(url)).status).toBe(401);
    const pass = makePass(TOKEN, { role: 'observer', run: 'lm', validMs: 1_500 });
    const wrong = await fetch(`${url}?run=other`, { headers: { Authorization: `Bearer ${pass}` } });
    expect(wrong.status).toBe(403);
    const told = await listen(members.coordinator, '?run=lm', pass, () => false); // until it ends
    expect(told.map(({ event }) => event).at(-1)).toBe('end');
  });
});

describe('who listens and reads nothing', () => {
  afterEach(() => void vi.useRealTimers());

  test('is given no more than one state, and dropped in the end; others are told all the same', () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
    class Response extends EventEmitter {
      writableLength = 0;
      written = 0;
      isDestroyed = false;
      readonly reads: boolean;
      constructor(reads: boolean) {
        super();
        this.reads = reads;
      }
      write(text: string): void {
        this.written += 1;
        if (!this.reads) this.writableLength += text.length;
      }
      destroy(): void {
        this.isDestroyed = true;
        this.emit('close');
      }
    }
    const timeline = new Timeline();
    const source: Partial<ApiSource> = {
      names: () => [{ run: 'lm', members: 1 }],
      run: () => null,
      coordinator: () => null,
      watch: () => ({ timeline }) as ReturnType<ApiSource['watch']>, // all that the feed asks for
    };
    const feed = new Feed(source as ApiSource); // the same
    const [idle, busy] = [new Response(false), new Response(true)];
    const audience = { wanted: null, allowed: null, mayStay: () => true };
    for (const response of [idle, busy]) feed.add(response as unknown as ServerResponse, audience);
    for (let second = 0; second < 9; second++) vi.advanceTimersByTime(1_000);
    expect({ written: idle.written, isDestroyed: idle.isDestroyed }).toEqual({ written: 1, isDestroyed: false });
    expect(busy.written).toBeGreaterThan(8);
    vi.advanceTimersByTime(3_000);
    expect([idle.isDestroyed, busy.isDestroyed, feed.size]).toEqual([true, false, 1]);
    feed.close();
  });
});
