/** Makes the errors that docs/troubleshooting.md shows, as a user would: each function returns what was thrown. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join as path } from 'node:path';
import { Coordinator, type Group, type JoinOptions, join } from 'skein';
import { PeerProcess, type RemoteError } from '../harness/cluster.ts';
import { ROOT } from './documents.ts';
import { NextCoordinator } from './next-release.ts';

export interface Failure {
  readonly code: string | undefined;
  readonly message: string;
}

/** @throws Error when nothing fails */
async function failureOf(doing: Promise<unknown> | (() => unknown)): Promise<Failure> {
  try {
    await (typeof doing === 'function' ? doing() : doing);
  } catch (error) {
    if (error instanceof Error && 'code' in error) return { code: String(error.code), message: error.message };
    throw error;
  }
  throw new Error('it did not fail');
}

/** As many members, in this process, that leave at the end. */
async function withMembers<T>(count: number, body: (groups: Group[]) => Promise<T>): Promise<T> {
  await using coordinator = await Coordinator.listen({ port: 0 });
  const options: JoinOptions = { engine: 'inline', startWorldSize: count, timeout: 20_000 };
  const groups = await Promise.all(Array.from({ length: count }, () => join(coordinator.address, options)));
  groups.sort((left, right) => left.rank - right.rank);
  try {
    return await body(groups);
  } finally {
    await Promise.all(groups.map((group) => group.leave()));
  }
}

/** Two peers, of which one is stopped for longer than the detector's bound, in the middle of a call of the other. */
async function stopped(): Promise<Failure[]> {
  await using coordinator = await Coordinator.listen({ port: 0, lostAfterMs: 1_500 });
  const peer = new PeerProcess();
  try {
    const options: JoinOptions = { engine: 'inline', startWorldSize: 2, timeout: 20_000 };
    const [group] = await Promise.all([
      join(coordinator.address, options),
      peer.join(coordinator.address, { ...options, engine: 'worker' }),
    ]);
    peer.child.kill('SIGSTOP');
    const lost = await failureOf(group.allReduce(new Float32Array(4), { recovery: 'fail' }));
    peer.child.kill('SIGCONT');
    const evicted = await failureOf(
      peer
        .run(({ state }) => state.group!.allReduce(new Float32Array(4)).then(() => 'done'))
        .catch((error: RemoteError) => {
          throw Object.assign(new Error(error.message), { code: error.code });
        }),
    );
    await group.leave();
    return [lost, evicted];
  } finally {
    await peer.kill();
  }
}

/** A fault of ours, in the engine's thread. */
function broken(): Failure {
  const folder = mkdtempSync(path(ROOT, 'dist/docs-'));
  try {
    const fault = path(folder, 'fault.mjs');
    writeFileSync(
      fault,
      "import { isMainThread } from 'node:worker_threads';\nif (!isMainThread) setTimeout(() => { throw new RangeError('Array buffer allocation failed'); }, 300);\n",
    );
    const script =
      "import { Coordinator, join } from 'skein';\nprocess.on('uncaughtException', ({ code, message }) => { console.log(JSON.stringify({ code, message })); process.exit(); });\n" +
      'const coordinator = await Coordinator.listen({ port: 0 });\nawait join(coordinator.address);\n';
    const program = path(folder, 'program.mjs');
    writeFileSync(program, script);
    const { stdout } = spawnSync(process.execPath, ['--import', fault, program], { encoding: 'utf8', timeout: 20_000 });
    return JSON.parse(stdout) as Failure;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function refusedByNewer(): Promise<Failure> {
  await using coordinator = await NextCoordinator.listen({ port: 0 });
  return await failureOf(join(coordinator.address, { engine: 'inline' }));
}

/** Something else listens there. */
async function notSkein(): Promise<Failure> {
  const server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n', () => socket.destroy()));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
  try {
    return await failureOf(join(`tcp://127.0.0.1:${address.port}`, { engine: 'inline', timeout: 2_000 }));
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

async function unknownToken(): Promise<Failure> {
  await using coordinator = await Coordinator.listen({ port: 0, token: 'that of the run' });
  return await failureOf(join(coordinator.address, { engine: 'inline', token: 'another' }));
}

async function alone(): Promise<Failure> {
  await using coordinator = await Coordinator.listen({ port: 0 });
  return await failureOf(join(coordinator.address, { engine: 'inline', startWorldSize: 2, timeout: 500 }));
}

async function excluded([first, second]: readonly Group[]): Promise<Failure> {
  const tensors = [new Float32Array(4), new Float32Array(4)];
  await first!.allReduce(tensors[0]!, { stragglers: 'exclude' });
  return failureOf(second!.allReduce(tensors[1]!, { stragglers: 'exclude' }));
}

async function withdrawn([first, second]: readonly Group[]): Promise<Failure> {
  const other = second!.allReduce(new Float32Array(4), { signal: AbortSignal.timeout(100) });
  await other.catch(() => {});
  return failureOf(first!.allReduce(new Float32Array(4)));
}

async function mismatched([first, second]: readonly Group[]): Promise<Failure> {
  const other = failureOf(second!.allReduce(new Float32Array(1_001), { op: 'avg' }));
  const own = await failureOf(first!.allReduce(new Float32Array(1_000), { op: 'avg' }));
  await other;
  return own;
}

async function poisoned([first, second]: readonly Group[]): Promise<Failure> {
  const guard = { finite: true };
  const other = failureOf(second!.allReduce(new Float32Array(1_000), { guard }));
  const own = await failureOf(first!.allReduce(new Float32Array(1_000).fill(Number.NaN, 17, 18), { guard }));
  await other;
  return own;
}

async function late([first, second]: readonly Group[]): Promise<Failure> {
  const own = await failureOf(first!.allReduce(new Float32Array(4), { tag: 'losses', timeout: 300 }));
  await failureOf(second!.allReduce(new Float32Array(4), { tag: 'losses', timeout: 300 }));
  return own;
}

/** All only receive: nobody holds what could be taken. */
async function stateLost([group]: readonly Group[]): Promise<Failure> {
  const state = { revision: 0, entries: { weights: new Float32Array(4) } };
  return failureOf(group!.syncState(state, { strategy: 'receive-only' }));
}

async function changedTooEarly([group]: readonly Group[]): Promise<Failure> {
  const weights = new Float32Array(4);
  await group!.syncState({ revision: 17, entries: { weights } });
  weights[0] = 1;
  return failureOf(group!.snapshot());
}

/** What a coordinator writes, whose store can't be reached. Nobody's call ends with it. */
async function storeAway(): Promise<Failure> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
  await new Promise((resolve) => server.close(resolve));
  let coordinator: Coordinator | undefined;
  const message = await new Promise<string>((resolve, reject) => {
    Coordinator.listen({ port: 0, store: `etcd:http://127.0.0.1:${address.port}`, onNote: resolve }).then((one) => {
      coordinator = one;
    }, reject);
  });
  await coordinator?.close();
  return { code: 'SKEIN_STORE', message };
}

/** All of them, in about five seconds. */
export async function provokeAll(): Promise<readonly Failure[]> {
  const one = async (body: (groups: Group[]) => Promise<Failure>) => [await withMembers(2, body)];
  const all = await Promise.all([
    one(excluded),
    stopped(),
    one(withdrawn),
    one(mismatched),
    one(poisoned),
    one(late),
    alone().then((failure) => [failure]),
    unknownToken().then((failure) => [failure]),
    refusedByNewer().then((failure) => [failure]),
    notSkein().then((failure) => [failure]),
    failureOf(join('tcp://127.0.0.1:9', { engine: 'inline', timeout: 2_000 })).then((failure) => [failure]),
    failureOf(() => join()).then((failure) => [failure]),
    withMembers(1, stateLost).then((failure) => [failure]),
    withMembers(1, changedTooEarly).then((failure) => [failure]),
    storeAway().then((failure) => [failure]),
    withMembers(1, async ([group]) => {
      const mixed = await failureOf(() => group!.allReduce([new Float32Array(4), new Int32Array(1)]));
      await group!.leave();
      return [mixed, await failureOf(() => group!.allReduce(new Float32Array(4)))];
    }),
  ]);
  return [...all.flat(), broken()];
}
