/** etcd, as Debian has it: several members on this machine, with their data where it is removed at the end. Used with `await using`. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Daemon } from './daemon.ts';

/** As long as the longest file of tests (ms). */
const DEADLINE_MS = 600_000;
/** It syncs each write: a busy disk would make it lose its leader. */
const MEMORY = '/dev/shm';
/** Until all members are well (ms). */
const READY_MS = 30_000;

/** Ports that nobody has now. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => new Promise((resolve) => server.once('listening', resolve))));
  const ports = servers.map((server) => (server.address() as AddressInfo).port); // it listens on TCP
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function ask(url: string, path: string, body?: object): Promise<Record<string, unknown>> {
  const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
  const response = await fetch(`${url}${path}`, { ...init, signal: AbortSignal.timeout(1_000) });
  return (await response.json()) as Record<string, unknown>;
}

interface Member {
  readonly url: string;
  readonly daemon: Daemon;
}

export class Etcd {
  readonly #folder: string;
  readonly members: readonly Member[];

  static async start(count: number, deadlineMs: number = DEADLINE_MS): Promise<Etcd> {
    const folder = mkdtempSync(`${existsSync(MEMORY) ? MEMORY : tmpdir()}/skein-etcd-`);
    const ports = await freePorts(2 * count);
    const urls = ports.map((port) => `http://127.0.0.1:${port}`);
    const peers = Array.from({ length: count }, (_, index) => `m${index}=${urls[count + index]}`).join(',');
    const members = Array.from({ length: count }, (_, index) => {
      const [client, peer] = [urls[index]!, urls[count + index]!];
      const command = [
        ...(['etcd', '--name', `m${index}`, '--data-dir', `${folder}/m${index}`] as const),
        ...['--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
        ...['--initial-cluster', peers, '--initial-cluster-state', 'new', '--log-level', 'error'],
      ] as const;
      return { url: client, daemon: new Daemon(command, process.env, deadlineMs) };
    });
    const etcd = new Etcd(folder, members);
    try {
      await etcd.#ready();
    } catch (error) {
      await etcd[Symbol.asyncDispose]();
      throw error;
    }
    return etcd;
  }

  private constructor(folder: string, members: readonly Member[]) {
    this.#folder = folder;
    this.members = members;
  }

  get urls(): readonly string[] {
    return this.members.map(({ url }) => url);
  }

  async #ready(): Promise<void> {
    const end = Date.now() + READY_MS;
    for (const { url, daemon } of this.members) {
      for (;;) {
        const health = await ask(url, '/health').catch(() => ({}) as Record<string, unknown>);
        if (health['health'] === 'true') break;
        if (Date.now() > end) throw new Error(`etcd at ${url} is not well: ${daemon.output}`);
        await delay(50);
      }
    }
  }

  /** The member that the others follow. */
  async leader(): Promise<Member> {
    for (const member of this.members) {
      const status = await ask(member.url, '/v3/maintenance/status', {}).catch(() => null);
      if (status === null) continue;
      const id = (status['header'] as { member_id: string }).member_id;
      if (id === status['leader']) return member;
    }
    throw new Error('etcd has no leader');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.members.map(({ daemon }) => daemon.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A way to a server that can be cut: then nothing goes through, and nobody is told. */
export class Gate {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;
  #isCut = false;

  static async open(to: string): Promise<Gate> {
    const target = new URL(to);
    const sockets: Set<Socket> = new Set();
    const gates: Gate[] = [];
    const server = createServer((near) => {
      const far = dial(Number(target.port), target.hostname);
      const forward = (from: Socket, into: Socket) => {
        sockets.add(from);
        from.on('data', (bytes) => {
          if (gates[0]?.isCut !== true) into.write(bytes);
        });
        from.on('error', () => {});
        from.on('close', () => {
          sockets.delete(from);
          into.destroy();
        });
      };
      forward(near, far);
      forward(far, near);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo; // it listens on TCP
    const gate = new Gate(`http://127.0.0.1:${port}`, server, sockets);
    gates.push(gate);
    return gate;
  }

  private constructor(url: string, server: Server, sockets: Set<Socket>) {
    this.url = url;
    this.#server = server;
    this.#sockets = sockets;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  cut(): void {
    this.#isCut = true;
  }

  /** What was lost meanwhile stays lost, so old connections end. */
  mend(): void {
    this.#isCut = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
