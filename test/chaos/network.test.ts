/**
 * The network of `skein chaos`, for real: namespaces, a router and the relay of packets. That TCP sees what is promised is
 * read from the kernel's own counters.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import type { Network as NetworkOfRun } from '../../src/chaos/network.ts';
import { requireRelay } from '../harness/requirements.ts';

// The relay is a process of its own, and runs from what was built.
const BUILT = new URL('../../dist/src/chaos/network.js', import.meta.url).href;
const { Network } = (await import(BUILT)) as { Network: typeof NetworkOfRun };

const MEBIBYTE = 1024 * 1024;

/** Answers each line with the number of bytes that it was asked for. */
const SERVER = `
require('net').createServer((socket) => {
  socket.setNoDelay(true).setEncoding('latin1').on('error', () => {});
  socket.on('data', (text) => { for (const count of text.split('\\n').filter(Boolean)) socket.write(Buffer.alloc(Number(count), 7)); });
}).listen(5000, '0.0.0.0', () => console.log('ready'));
setTimeout(() => process.exit(1), 60_000);`;

/** Asks for so many bytes, so many times; prints the median time of an answer, or how it went wrong. */
const CLIENT = `
const [host, bytes, times] = [process.argv[1], Number(process.argv[2]), Number(process.argv[3])];
const socket = require('net').connect(5000, host).setNoDelay(true);
const taken = [];
let [left, since] = [bytes, 0];
const ask = () => { left = bytes; since = performance.now(); socket.write(bytes + '\\n'); };
socket.once('connect', ask).on('data', (data) => {
  if (data.some((byte) => byte !== 7)) throw new Error('damaged');
  left -= data.length;
  if (left > 0) return;
  taken.push(performance.now() - since);
  if (taken.length < times) return ask();
  console.log(taken.sort((a, b) => a - b)[times >> 1]);
  process.exit(0);
});
setTimeout(() => process.exit(1), 30_000);`;

class Pair {
  readonly network: NetworkOfRun;
  readonly failures: Error[] = [];
  #server: ChildProcess | null = null;

  static async start(): Promise<Pair> {
    const failures: Error[] = [];
    const onFailure = (error: Error) => void failures.push(error);
    const pair = new Pair(await Network.open({ peers: 2, relay: true, seed: 1, onFailure }), failures);
    pair.#server = pair.#spawn(1, SERVER);
    await once(pair.#server.stdout!, 'data'); // it is a pipe
    return pair;
  }

  private constructor(network: NetworkOfRun, failures: Error[]) {
    this.network = network;
    this.failures = failures;
  }

  #spawn(index: number, code: string, ...args: readonly string[]): ChildProcess {
    const [program, ...rest] = this.network.namespaces.wrap(index, [process.execPath, '-e', code, ...args]);
    const env = { ...process.env, ...this.network.namespaces.environment };
    return spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'], env });
  }

  /** Median milliseconds for peer 0 to get so many bytes from peer 1. */
  async fetch(bytes: number, times: number): Promise<number> {
    const child = this.#spawn(0, CLIENT, this.network.namespaces.address(1), String(bytes), String(times));
    let text = '';
    child.stdout!.on('data', (data: Buffer) => {
      text += data.toString();
    });
    const [code] = (await once(child, 'close')) as [number | null]; // what 'close' comes with
    expect(code).toBe(0);
    return Number(text);
  }

  /** A counter of the kernel, of peer 0's namespace. */
  counter(group: 'Tcp' | 'TcpExt', name: string): number {
    const files = ['cat', '/proc/net/snmp', '/proc/net/netstat'] as const;
    const [program, ...rest] = this.network.namespaces.wrap(0, files);
    const env = { ...process.env, ...this.network.namespaces.environment };
    const lines = execFileSync(program, rest, { env, encoding: 'utf8' }).split('\n');
    const [names, values] = lines.filter((line) => line.startsWith(`${group}:`)).map((line) => line.split(' '));
    return Number(values![names!.indexOf(name)]);
  }

  /** Processes in the router's namespace: the relay and its socat. */
  relayProcesses(): readonly number[] {
    const [program, , , router] = this.network.namespaces.wrap('router', ['true']);
    const env = { ...process.env, ...this.network.namespaces.environment };
    const text = execFileSync(program, ['netns', 'pids', router!], { env, encoding: 'utf8' });
    return text.split('\n').filter(Boolean).map(Number);
  }

  /** Ends all; what is left of it. */
  async close(): Promise<readonly string[]> {
    const relay = this.relayProcesses();
    this.#server?.kill('SIGKILL');
    await this.network.close();
    const names = readdirSync('/run/netns').filter((name) => name.startsWith(`skein${process.pid}`));
    return [...names, ...relay.filter((pid) => existsSync(`/proc/${pid}`)).map(String)];
  }
}

describe('the network of a run of chaos', () => {
  let pair: Pair | null = null;
  afterEach(async () => {
    const left = await pair?.close();
    pair = null;
    expect(left ?? []).toEqual([]);
  });

  test('delays packets, and is calm before and after', async (context) => {
    requireRelay(context);
    pair = await Pair.start();
    const fault = { kind: 'delay', victim: 1, delayMs: 40, jitterMs: 0, forMs: 0 } as const;
    expect(await pair.fetch(1, 21)).toBeLessThan(20);
    pair.network.begin(fault);
    const delayed = await pair.fetch(1, 21);
    pair.network.end(fault);
    expect(delayed).toBeGreaterThan(79); // there and back
    expect(delayed).toBeLessThan(160);
    expect(await pair.fetch(1, 21)).toBeLessThan(20);
  });

  test('lets packets overtake one another, which TCP puts in order', async (context) => {
    requireRelay(context);
    pair = await Pair.start();
    const fault = { kind: 'reorder', victim: 1, percent: 20, delayMs: 5, forMs: 0 } as const;
    await pair.fetch(MEBIBYTE, 1);
    expect(pair.counter('TcpExt', 'TCPOFOQueue')).toBe(0);
    pair.network.begin(fault);
    await pair.fetch(MEBIBYTE, 3);
    expect(pair.counter('TcpExt', 'TCPOFOQueue')).toBeGreaterThan(10);
  });

  test('damages packets, which TCP notices and sends again', async (context) => {
    requireRelay(context);
    pair = await Pair.start();
    pair.network.begin({ kind: 'corrupt', victim: 1, percent: 5, forMs: 0 });
    await pair.fetch(MEBIBYTE, 5);
    expect(pair.counter('Tcp', 'InCsumErrors')).toBeGreaterThan(10);
    expect(pair.failures).toEqual([]);
  });

  test('ends one of several faults of a peer without ending the others', async (context) => {
    requireRelay(context);
    pair = await Pair.start();
    const late = (delayMs: number) => ({ kind: 'delay', victim: 1, delayMs, jitterMs: 0, forMs: 0 }) as const;
    const [first, second] = [late(20), late(40)];
    const slow = { kind: 'slow', victim: 1, megabits: 20, forMs: 0 } as const;
    for (const fault of [first, second, slow]) pair.network.begin(fault);
    expect(await pair.fetch(1, 11)).toBeGreaterThan(119);
    pair.network.end(first);
    const delayed = await pair.fetch(1, 11);
    expect(delayed).toBeGreaterThan(79);
    expect(delayed).toBeLessThan(119);
    pair.network.end(second);
    // A mebibyte at 20 Mbit/s takes 0.4 s, of which the bucket of the shaper gives some at once.
    expect(await pair.fetch(MEBIBYTE, 3)).toBeGreaterThan(250);
    pair.network.end(slow);
    expect(await pair.fetch(MEBIBYTE, 3)).toBeLessThan(250);
  });

  test('tells when its relay was killed, and leaves nothing behind all the same', async (context) => {
    requireRelay(context);
    pair = await Pair.start();
    const processes = pair.relayProcesses();
    const relay = processes.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('relay-main'));
    expect(processes).toHaveLength(2);
    process.kill(relay!, 'SIGKILL');
    await expect.poll(() => pair!.failures[0]?.message).toContain('ended by itself (SIGKILL)');
    await expect.poll(() => pair!.relayProcesses()).toEqual([]);
  });
});
