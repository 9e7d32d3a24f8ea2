/** etcd, as Debian has it: several members on this machine, with their data where it is removed at the end. Used with `await using`. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Certificates } from '../../src/transport/tls.ts';
import { Daemon } from './daemon.ts';
import { freePorts } from './ports.ts';

/** As long as the longest file of tests (ms). */
const DEADLINE_MS = 600_000;
/** It syncs each write: a busy disk would make it lose its leader. */
const MEMORY = '/dev/shm';
/** Until all members are well (ms). */
const READY_MS = 30_000;

type PemFiles = Record<keyof Certificates, string>;

function askByTls(url: string, certificates: PemFiles, body: object | undefined): Promise<Record<string, unknown>> {
  return new Promise((done, fail) => {
    const method = body === undefined ? 'GET' : 'POST';
    const asked = request(url, { ...certificates, method, signal: AbortSignal.timeout(1_000) }, async (response) => {
      let text = '';
      for await (const bytes of response) text += String(bytes);
      done(JSON.parse(text) as Record<string, unknown>);
    });
    asked.on('error', fail);
    asked.end(body === undefined ? '' : JSON.stringify(body));
  });
}

async function ask(
  url: string,
  path: string,
  body?: object,
  certificates: PemFiles | null = null,
): Promise<Record<string, unknown>> {
  if (certificates !== null) return askByTls(`${url}${path}`, certificates, body);
  const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
  const response = await fetch(`${url}${path}`, { ...init, signal: AbortSignal.timeout(1_000) });
  return (await response.json()) as Record<string, unknown>;
}

interface Member {
  readonly url: string;
  readonly daemon: Daemon;
}

interface EtcdSetup {
  readonly deadlineMs?: number;
  /** Its own, for 127.0.0.1, whose authority must have signed those of its clients; none: it speaks in the clear. */
  readonly certificates?: PemFiles;
  /** Tokens that nobody uses for so long end (s). */
  readonly tokenSeconds?: number;
}

export class Etcd {
  readonly #folder: string;
  readonly #certificates: PemFiles | null;
  readonly members: readonly Member[];

  static async start(count: number, setup: EtcdSetup = {}): Promise<Etcd> {
    const { deadlineMs = DEADLINE_MS, certificates = null, tokenSeconds = 300 } = setup;
    const folder = mkdtempSync(`${existsSync(MEMORY) ? MEMORY : tmpdir()}/skein-etcd-`);
    const ports = await freePorts(2 * count);
    const scheme = (index: number) => (certificates !== null && index < count ? 'https' : 'http');
    const urls = ports.map((port, index) => `${scheme(index)}://127.0.0.1:${port}`);
    for (const [name, text] of Object.entries(certificates ?? {})) writeFileSync(`${folder}/${name}.pem`, text);
    const tls = ['--cert-file', `${folder}/cert.pem`, '--key-file', `${folder}/key.pem`];
    const clients = ['--client-cert-auth', '--trusted-ca-file', `${folder}/ca.pem`];
    const peers = Array.from({ length: count }, (_, index) => `m${index}=${urls[count + index]}`).join(',');
    const members = Array.from({ length: count }, (_, index) => {
      const [client, peer] = [urls[index]!, urls[count + index]!];
      const command = [
        ...(['etcd', '--name', `m${index}`, '--data-dir', `${folder}/m${index}`] as const),
        ...['--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
        ...['--initial-cluster', peers, '--initial-cluster-state', 'new', '--log-level', 'error'],
        ...['--auth-token-ttl', `${tokenSeconds}`],
        ...(certificates === null ? [] : [...tls, ...clients]),
      ] as const;
      return { url: client, daemon: new Daemon(command, process.env, deadlineMs) };
    });
    const etcd = new Etcd(folder, certificates, members);
    try {
      await etcd.#ready();
    } catch (error) {
      await etcd[Symbol.asyncDispose]();
      throw error;
    }
    return etcd;
  }

  private constructor(folder: string, certificates: PemFiles | null, members: readonly Member[]) {
    this.#folder = folder;
    this.#certificates = certificates;
    this.members = members;
  }

  get urls(): readonly string[] {
    return this.members.map(({ url }) => url);
  }

  async #ready(): Promise<void> {
    const end = Date.now() + READY_MS;
    for (const { url, daemon } of this.members) {
      for (;;) {
        const health = await ask(url, '/health', undefined, this.#certificates).catch(
          () => ({}) as Record<string, unknown>,
        );
        if (health['health'] === 'true') break;
        if (Date.now() > end) throw new Error(`etcd at ${url} is not well: ${daemon.output}`);
        await delay(50);
      }
    }
  }

  /** By its gateway; with what it says it may be refused. */
  async administer(path: string, body: object): Promise<void> {
    const answer = await ask(this.urls[0]!, `/v3/${path}`, body, this.#certificates);
    if ('error' in answer) throw new Error(`etcd refuses ${path}: ${JSON.stringify(answer)}`);
  }

  /** From now on it asks for passwords: of root, and of a user who may read and write below a prefix. */
  async demandPasswords(user: string, password: string, prefix: string): Promise<void> {
    const encode = (text: string) => Buffer.from(text).toString('base64');
    const end = `${prefix.slice(0, -1)}${String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)}`;
    const perm = { permType: 'READWRITE', key: encode(prefix), range_end: encode(end) };
    await this.administer('auth/role/add', { name: 'root' });
    await this.administer('auth/user/add', { name: 'root', password: 'of root' });
    await this.administer('auth/user/grant', { user: 'root', role: 'root' });
    await this.administer('auth/role/add', { name: 'coordinators' });
    await this.administer('auth/role/grant', { name: 'coordinators', perm });
    await this.administer('auth/user/add', { name: user, password });
    await this.administer('auth/user/grant', { user, role: 'coordinators' });
    await this.administer('auth/enable', {});
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
