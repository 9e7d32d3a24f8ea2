/** The internet of tests is what it says: its boxes translate and block as their kinds do, and all of it goes when it shall go. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { runTool } from '../../src/chaos/namespace-set.ts';
import { built } from '../harness/built.ts';
import { requireInternet } from '../harness/requirements.ts';
import { type Host, Internet, type Nat, type NatKind } from './internet.ts';
import type { Reflection } from './mirror.ts';

const MIRROR = built('test/nat/mirror.ts');
const INTERNET = built('test/nat/internet.ts');

/** Two public hosts that say how others look from there, and whoever asks them. */
class Mirrors {
  readonly internet: Internet = new Internet();
  readonly #hosts: readonly [Host, Host] = [this.internet.host(), this.internet.host()];

  static async start(): Promise<Mirrors> {
    const mirrors = new Mirrors();
    await Promise.all(mirrors.#hosts.map((host) => host.node(MIRROR, ['answer']).wrote(/ready/)));
    return mirrors;
  }

  async reflect(host: Host): Promise<Reflection> {
    const [first, second] = this.#hosts;
    const asking = host.node(MIRROR, ['ask', first.address, second.address]);
    const reflection = await asking.message<Reflection>();
    await asking.ended;
    return reflection;
  }
}

/** The ports of a socket at `address`, as others see them. */
function portsAt(address: string | null, { udp }: Reflection): number[] {
  return udp.map((seen) => {
    const [host, port] = seen?.split(':') ?? [];
    expect(host).toBe(address);
    return Number(port);
  });
}

describe('the kinds of boxes', () => {
  let shared: Promise<Mirrors> | null = null;
  const start = (): Promise<Mirrors> => {
    shared ??= Mirrors.start();
    return shared;
  };
  afterAll(async () => (await shared)?.internet[Symbol.asyncDispose]());

  /** What a host behind a new box of this kind sees. */
  async function look(kind: NatKind): Promise<{ nat: Nat; host: Host; reflection: Reflection }> {
    const mirrors = await start();
    const nat = mirrors.internet.nat(kind);
    const host = nat.host();
    return { nat, host, reflection: await mirrors.reflect(host) };
  }

  test('open: a host is seen as it is, and hears strangers', async (context) => {
    requireInternet(context);
    const { host, reflection } = await look('open');
    expect(new Set(portsAt(host.address, reflection)).size).toBe(1);
    expect(reflection.heardStranger).toBe(true);
    expect(reflection.tcp).toMatch(`${host.address}:`);
  });

  test('cone: all see the same port of the box, and only those hear back from whom something was asked', async (context) => {
    requireInternet(context);
    const { nat, reflection } = await look('cone');
    expect(new Set(portsAt(nat.address, reflection)).size).toBe(1);
    expect(reflection.heardStranger).toBe(false);
    expect(reflection.tcp).toMatch(`${nat.address}:`);
  });

  test('symmetric: each sees another port of the box', async (context) => {
    requireInternet(context);
    const { nat, reflection } = await look('symmetric');
    expect(new Set(portsAt(nat.address, reflection)).size).toBeGreaterThan(1);
    expect(reflection.heardStranger).toBe(false);
    expect(reflection.tcp).toMatch(`${nat.address}:`);
  });

  test('tcp-only: TCP goes out, and no packet of UDP', async (context) => {
    requireInternet(context);
    const { nat, reflection } = await look('tcp-only');
    expect(reflection).toMatchObject({ udp: [null, null, null], heardStranger: false });
    expect(reflection.tcp).toMatch(`${nat.address}:`);
  });

  test('hosts behind one box share its address, but not their ports', async (context) => {
    requireInternet(context);
    const mirrors = await start();
    const nat = mirrors.internet.nat('cone');
    const hosts = [nat.host(), nat.host()];
    expect(new Set(hosts.map((host) => host.address)).size).toBe(2);
    const ports = await Promise.all(hosts.map(async (host) => portsAt(nat.address, await mirrors.reflect(host))));
    expect(new Set(ports.flat()).size).toBe(2);
  });
});

describe('what is made goes away', () => {
  const namespaces = () => (existsSync('/run/netns') ? readdirSync('/run/netns') : []);

  /** Makes an internet in a process of its own with a host that sleeps, and tells the pid of the sleeper. */
  const MAKER = `
const { Internet } = await import(process.argv[1]);
const internet = new Internet();
const sleeper = internet.nat('cone').host().spawn(['sleep', '1000']);
console.log(sleeper.child.pid);
`;

  async function make(): Promise<{ maker: number; sleeper: number; kill: () => void }> {
    const child = spawn(process.execPath, ['--input-type=module', '-e', MAKER, INTERNET], {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 30_000,
      killSignal: 'SIGKILL',
    });
    const [text] = (await once(child.stdout, 'data')) as [Buffer]; // it is a pipe
    return { maker: child.pid!, sleeper: Number(text.toString()), kill: () => void child.kill('SIGKILL') };
  }

  test('when it is disposed of, with the processes in it', async (context) => {
    requireInternet(context);
    let pid = 0;
    const made = () => namespaces().filter((name) => name.startsWith(`skein${process.pid}-`));
    {
      await using internet = new Internet();
      const sleeper = internet.nat('symmetric').host().spawn(['sleep', '1000']);
      pid = sleeper.child.pid!;
      expect(made()).toHaveLength(3);
    }
    expect(made()).toEqual([]);
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  });

  test('when its process is killed', async (context) => {
    requireInternet(context);
    const { maker, sleeper, kill } = await make();
    const made = () => namespaces().filter((name) => name.startsWith(`skein${maker}-`));
    expect(made()).toHaveLength(3);
    kill();
    await expect.poll(made, { timeout: 10_000 }).toEqual([]);
    await expect.poll(() => existsSync(`/proc/${sleeper}`), { timeout: 10_000 }).toBe(false);
  });

  test('when the next one is made, if its process and its guard were killed', async (context) => {
    requireInternet(context);
    const dead = spawn('true');
    await once(dead, 'exit');
    const stale = `skein${dead.pid}-abcdef-host0`;
    runTool('ip', ['netns', 'add', stale]);
    expect(namespaces()).toContain(stale);
    await using _ = new Internet();
    expect(namespaces()).not.toContain(stale);
  });

  test('a process in it that is past its deadline is killed', async (context) => {
    requireInternet(context);
    await using internet = new Internet();
    const sleeper = internet.host().spawn(['sh', '-c', 'echo begun; sleep 1000'], { deadlineMs: 1_000 });
    await expect(sleeper.wrote(/never/)).rejects.toThrow(
      /ended \(SIGKILL\) before it wrote \/never\/. It wrote:\nbegun/,
    );
  });
});
