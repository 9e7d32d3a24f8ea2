/** Real processes that stand still, and what `skein doctor` says of them. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { Namespaces as NamespacesOfRun } from '../../src/chaos/namespaces.ts';
import type { Verdict } from '../../src/doctor/verdicts.ts';
import type { FlightDump } from '../../src/wire/flight.ts';
import { Command } from '../cli/command.ts';
import { Cluster, PeerProcess } from '../harness/cluster.ts';
import { requireNamespaces } from '../harness/requirements.ts';

/** What is made before what is to hang, so that each peer has a last call. */
const WARM_UPS = 3;

const undo: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one();
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'skein-flight-'));
  undo.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

interface Run {
  readonly cluster: Cluster;
  /** By rank. */
  readonly peers: readonly PeerProcess[];
  readonly ids: readonly string[];
}

/** Members that have made some calls together. */
async function formed(size: number, options: Parameters<Cluster['form']>[1] = {}): Promise<Run> {
  const cluster = await Cluster.start({ heartbeatMs: 100 });
  undo.push(() => cluster[Symbol.asyncDispose]());
  const peers = await cluster.form(size, options);
  return { cluster, peers, ids: await warmUp(peers) };
}

async function warmUp(peers: readonly PeerProcess[]): Promise<string[]> {
  return Promise.all(
    peers.map((peer) =>
      peer.run(async ({ state }, times) => {
        const group = state.group!;
        for (let turn = 0; turn < times; turn++) await group.allReduce(new Float32Array(100), { tag: 'grad' });
        return group.peerId;
      }, WARM_UPS),
    ),
  );
}

interface Call {
  readonly tag?: string;
  readonly count?: number;
  readonly sync?: boolean;
  readonly timeout?: number;
}

/** Makes an all-reduce; resolves when it is on its way. What becomes of it is not awaited. */
function call(peer: PeerProcess, { tag = 'grad', count = 100, sync = false, timeout = 60_000 }: Call = {}) {
  const told = `calls ${tag}`;
  const ended = peer
    .run(
      async ({ state, tell }, { tag, count, sync, timeout, told }) => {
        tell(told);
        if (sync) {
          // What was told leaves before the thread blocks.
          await new Promise((resolve) => setTimeout(resolve, 50));
          state.group!.allReduceSync(new Float32Array(count), { tag, timeout });
        } else await state.group!.allReduce(new Float32Array(count), { tag, timeout });
        return 'it succeeded';
      },
      { tag, count, sync, timeout, told },
    )
    .catch((error: Error) => error.message);
  return peer.told(told).then(() => ({ ended }));
}

interface Diagnosis {
  readonly code: number | NodeJS.Signals;
  readonly verdicts: readonly Verdict[];
  readonly flights: readonly FlightDump[];
}

async function doctor(
  args: readonly string[],
  ...more: Parameters<typeof Command.skein> extends [unknown, ...infer R] ? R : never
): Promise<Diagnosis> {
  await using command = Command.skein(['doctor', '--json', '--patience', '0.5', ...args], ...more);
  const code = await command.ended;
  expect(command.stderr).toBe('');
  return { code, ...(JSON.parse(command.stdout) as Omit<Diagnosis, 'code'>) };
}

/** Asks until something stands still, or for so long that nothing does. */
async function verdictOf(diagnose: () => Promise<Diagnosis>, isIt: (verdict: Verdict) => boolean): Promise<Verdict> {
  for (let turns = 0; ; turns++) {
    const { code, verdicts } = await diagnose();
    const found = verdicts.find(isIt);
    if (found !== undefined) {
      expect(code).toBe(1);
      return found;
    }
    if (turns === 20) throw new Error(`it found only ${JSON.stringify(verdicts)}`);
  }
}

const live = ({ cluster }: Run) => doctor(['--coordinator', cluster.coordinator.address, '--transports', 'unix,tcp']);

describe('a live run', () => {
  test('in which one never calls, its thread busy, while another’s is blocked: the one that never calls', async () => {
    const run = await formed(3);
    const [first, second, idle] = run.peers as [PeerProcess, PeerProcess, PeerProcess];
    void idle
      .run(({ tell }) => {
        tell('busy');
        // Until the test ends it.
        for (;;);
      })
      .catch(() => {});
    await idle.told('busy');
    await call(first);
    await call(second, { sync: true });
    const verdict = await verdictOf(
      () => live(run),
      ({ kind }) => kind === 'never-entered',
    );
    expect(verdict.culprits).toEqual([run.ids[2]]);
    expect(verdict.text).toMatch(
      new RegExp(
        `^rank 2 \\(${run.ids[2]}\\) never entered all-reduce #${WARM_UPS} \\(tag "grad"\\); ranks 0 and 1 wait for it since [\\d.]+ s; its last call was all-reduce #${WARM_UPS - 1} \\(tag "grad"\\), done`,
      ),
    );
  });

  test('that works: nobody, whatever it did before; then calls are made in different order: those who are fewer', async () => {
    const run = await formed(3);
    const { code, verdicts, flights } = await live(run);
    expect({ code, verdicts }).toEqual({ code: 0, verdicts: [] });
    expect(flights.map(({ peerId, calls }) => [peerId, calls.length]).sort()).toEqual(
      run.ids.map((peerId) => [peerId, WARM_UPS]).sort(),
    );
    const [flight] = flights;
    const last = flight!.calls.at(-1)!;
    expect(last).toMatchObject({ id: `${flight!.generation}:grad:${WARM_UPS - 1}`, state: 'committed', count: 100 });
    const [neighbour] = last.neighbours;
    for (const { neighbours } of flight!.calls) expect(neighbours.length).toBeGreaterThan(0);
    const bytes = last.neighbours.map(({ bytesSent, bytesReceived }) => bytesSent + bytesReceived);
    expect(Math.min(...bytes)).toBeGreaterThan(100);
    const order = [last.calledAt, last.begunAt, neighbour!.announcedAt, last.doneAt, last.endedAt].map(Number);
    expect(order).toEqual(order.toSorted((left, right) => left - right));

    await Promise.all(run.peers.map((peer, rank) => call(peer, { tag: rank === 1 ? 'b' : 'a' })));
    const verdict = await verdictOf(
      () => live(run),
      ({ kind }) => kind === 'order',
    );
    expect(verdict.culprits).toEqual([run.ids[1]]);
  });
});

describe('records in files', () => {
  test('explain a mismatched shape, on which the calls have failed', async () => {
    const flight = folder();
    const run = await formed(3, { flight });
    const calls = await Promise.all(run.peers.map((peer, rank) => call(peer, { count: rank === 1 ? 64 : 128 })));
    for (const { ended } of calls) expect(await ended).toContain('f32 × 64');
    await expect.poll(() => readdirSync(flight).filter((name) => name.endsWith('.json')).length).toBe(3);
    const { code, verdicts } = await doctor([flight]);
    expect(code).toBe(1);
    expect(verdicts).toMatchObject([{ kind: 'mismatch', culprits: [run.ids[1]] }]);
    expect(verdicts[0]!.text).toContain('with 64 f32, the others with 128 f32');
  });

  test('are written on SIGUSR2, and where the thread is blocked when the file `request` is touched; else never', async () => {
    const flight = folder();
    const run = await formed(2, { flight });
    const [first, second] = run.peers as [PeerProcess, PeerProcess];
    const files = () => readdirSync(flight).filter((name) => name.endsWith('.json'));
    const fileOf = (rank: number) => join(flight, `default-${run.ids[rank]}.json`);
    expect(files()).toEqual([]);
    await call(first, { tag: 'signalled' });
    first.child.kill('SIGUSR2');
    await expect.poll(() => existsSync(fileOf(0)), { timeout: 10_000 }).toBe(true);
    const dump = JSON.parse(readFileSync(fileOf(0), 'utf8')) as FlightDump;
    expect(dump).toMatchObject({ peerId: run.ids[0], reason: 'SIGUSR2' });
    expect(dump.calls.at(-1)).toMatchObject({ tag: 'signalled', state: 'running', awaits: [run.ids[1]] });

    await call(second, { tag: 'blocked', sync: true });
    await expect
      .poll(
        () => {
          writeFileSync(join(flight, 'request'), '');
          const text = existsSync(fileOf(1)) ? readFileSync(fileOf(1), 'utf8') : '';
          return text.includes('"tag":"blocked"');
        },
        { timeout: 10_000, interval: 200 },
      )
      .toBe(true);
    const verdict = await verdictOf(
      () => doctor([flight]),
      ({ kind }) => kind === 'order',
    );
    expect(verdict.culprits.toSorted()).toEqual(run.ids.toSorted());
  });
});

test('a peer that is cut off from the others, but not from the coordinator, is named', async (context) => {
  requireNamespaces(context);
  const built = new URL('../../dist/src/chaos/namespaces.js', import.meta.url).href;
  const { Namespaces } = (await import(built)) as { Namespaces: typeof NamespacesOfRun };
  const size = 3;
  // One more, for the doctor.
  const network = new Namespaces(size + 1);
  undo.push(() => network.remove());
  const environment = { ...network.environment, SKEIN_TOKEN: 'a token of the test' };
  const host = network.address('coordinator');
  const wrap = (where: number | 'coordinator') => (command: [string, ...string[]]) => network.wrap(where, command);
  const coordinator = Command.skein(
    ['coordinator', '--host', host, '--port', '7400'],
    environment,
    wrap('coordinator'),
  );
  undo.push(() => coordinator[Symbol.asyncDispose]());
  await coordinator.says(/tcp:/);
  const address = `tcp://${host}:7400`;
  const started = Array.from({ length: size }, (_, index) => {
    const place = {
      wrap: (command: readonly [string, ...string[]]) => network.wrap(index, command),
      environment: { ...process.env, ...environment },
    };
    const peer = new PeerProcess(60_000, place);
    undo.push(() => peer.kill());
    return peer;
  });
  const options = { transports: ['tcp'] as const, startWorldSize: size, timeout: 20_000 };
  await Promise.all(started.map((peer) => peer.join(address, options)));
  const ids = await warmUp(started);
  network.drop(2, [0, 1]);
  await Promise.all(started.map((peer) => call(peer, { timeout: 60_000 })));
  const ask = () => doctor(['--coordinator', address, '--transports', 'tcp'], environment, wrap(3));
  const verdict = await verdictOf(ask, ({ kind }) => kind === 'cut');
  expect(verdict.culprits).toEqual([ids[2]]);
  expect(verdict.text).toContain('is cut off: nothing passes between it and any other member since');
});
