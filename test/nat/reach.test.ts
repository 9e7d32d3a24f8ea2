/** Who can connect to whom by WebRTC, with node-datachannel alone: directly with STUN's help, through TURN, or not at all. */
import Table from 'cli-table3';
import type { IceServer, RtcConfig } from 'node-datachannel';
import { afterAll, describe, expect, type TestContext, test } from 'vitest';
import { requireInternet } from '../harness/requirements.ts';
import { attempt, ProbedHost } from './attempt.ts';
import { type Coturn, credentialsOf } from './coturn.ts';
import { type Host, Internet, type NatKind } from './internet.ts';
import type { ProbeReport } from './probe.ts';

/** An attempt that has not succeeded by then (ms) is given up; those that succeed take less than two seconds. */
const PATIENCE_MS = 15_000;
/** The same for one that can't succeed. */
const DOOMED_MS = 3_000;

/** Asks a server of STUN by TCP who we are; prints the kind of the answer. */
const BIND_OVER_TCP = `
const [address, port] = process.argv.slice(1);
const request = Buffer.from('000100002112a442' + '07'.repeat(12), 'hex');
const socket = require('net').connect(Number(port), address, () => socket.write(request));
socket.once('data', (answer) => {
  process.stdout.write(answer.toString('hex', 0, 2));
  process.exit();
});`;

/** How two hosts came together. */
type Way = 'direct' | 'relayed' | 'none';

type Pair = readonly [ProbedHost, ProbedHost];

/** What two hosts go by: STUN alone, STUN and TURN, or TURN alone. */
type Policy = 'stun' | 'all' | 'relay';

function wayOf(reports: readonly ProbeReport[]): Way {
  if (reports.some((report) => report.path === null)) return 'none';
  return reports.some((report) => report.path?.includes('relay')) ? 'relayed' : 'direct';
}

/** The hosts, the server and what was found; made when the first test needs them. */
class World {
  readonly internet: Internet = new Internet();
  readonly coturn: Promise<Coturn> = this.internet.coturn();
  readonly open: ProbedHost = this.#behind('open');
  readonly cones: readonly [ProbedHost, ProbedHost, neighbour: ProbedHost];
  readonly symmetric: Pair = [this.#behind('symmetric'), this.#behind('symmetric')];
  readonly tcpOnly: ProbedHost;
  readonly behindFirewall: Host;
  readonly #found: Map<string, Partial<Record<Policy, string>>> = new Map();

  constructor() {
    const home = this.internet.nat('cone');
    this.cones = [new ProbedHost(home.host()), this.#behind('cone'), new ProbedHost(home.host())];
    this.behindFirewall = this.internet.nat('tcp-only').host();
    this.tcpOnly = new ProbedHost(this.behindFirewall);
  }

  #behind(kind: NatKind): ProbedHost {
    return new ProbedHost(this.internet.nat(kind).host());
  }

  async configuration(policy: Policy, server?: Coturn): Promise<RtcConfig> {
    const coturn = server ?? (await this.coturn);
    const stun: IceServer = { hostname: coturn.address, port: coturn.port };
    const turn: IceServer = { ...stun, ...credentialsOf(coturn.secret), relayType: 'TurnUdp' };
    if (policy === 'stun') return { iceServers: [stun] };
    return policy === 'all' ? { iceServers: [stun, turn] } : { iceServers: [turn], iceTransportPolicy: 'relay' };
  }

  /** Lets two hosts try, and notes what came of it in the row of this name. */
  async meet(row: string, [first, second]: Pair, policy: Policy, patienceMs: number, server?: Coturn): Promise<Way> {
    const configuration = await this.configuration(policy, server);
    const reports = await attempt(first, second, { configuration, patienceMs });
    const way = wayOf(reports);
    const cells = this.#found.get(row) ?? {};
    cells[policy] = way === 'none' ? way : `${way} in ${Math.round(reports[0].connectedMs!)} ms`;
    this.#found.set(row, cells);
    return way;
  }

  table(): string {
    const table = new Table({ head: ['between', 'STUN', 'STUN and TURN', 'TURN alone'], style: { head: [] } });
    for (const [row, { stun = '', all = '', relay = '' }] of this.#found) table.push([row, stun, all, relay]);
    return table.toString();
  }
}

/** Which ways there are. Where a direct one is, `all` may find a relayed one before it, and change over later. */
type Ways = Readonly<Record<Policy, readonly Way[]>>;

const DIRECTLY: Ways = { stun: ['direct'], all: ['direct', 'relayed'], relay: ['relayed'] };
const THROUGH_TURN: Ways = { stun: ['none'], all: ['relayed'], relay: ['relayed'] };
const NOT_AT_ALL: Ways = { stun: ['none'], all: ['none'], relay: ['none'] };

describe('WebRTC', () => {
  let world: World | null = null;
  const worldFor = (context: TestContext): World => {
    requireInternet(context);
    world ??= new World();
    return world;
  };
  afterAll(async () => {
    if (world !== null) console.log(world.table());
    await world?.internet[Symbol.asyncDispose]();
  });

  const rows: readonly [name: string, hosts: (world: World) => Pair, ways: Ways][] = [
    ['public and cone: directly', ({ open, cones: [cone] }) => [open, cone], DIRECTLY],
    ['public and symmetric: directly', ({ open, symmetric: [symmetric] }) => [open, symmetric], DIRECTLY],
    ['two behind one cone: directly', ({ cones: [cone, , neighbour] }) => [cone, neighbour], DIRECTLY],
    ['cone and cone: directly', ({ cones: [one, other] }) => [one, other], DIRECTLY],
    [
      'cone and symmetric: through TURN',
      ({ cones: [cone], symmetric: [symmetric] }) => [cone, symmetric],
      THROUGH_TURN,
    ],
    ['symmetric and symmetric: through TURN', ({ symmetric: [one, other] }) => [one, other], THROUGH_TURN],
    ['public and TCP only: not at all', ({ open, tcpOnly }) => [open, tcpOnly], NOT_AT_ALL],
  ];

  for (const [name, hostsOf, ways] of rows) {
    test(name, async (context) => {
      const world = worldFor(context);
      const meet = (policy: Policy, patienceMs = PATIENCE_MS) => world.meet(name, hostsOf(world), policy, patienceMs);
      // What comes to nothing takes as long as our patience, so all of that at once; what is measured, by itself.
      const doomed = (['stun', 'all', 'relay'] as const).filter((policy) =>
        ways[policy].every((way) => way === 'none'),
      );
      const found = new Map(
        await Promise.all(doomed.map(async (policy) => [policy, await meet(policy, DOOMED_MS)] as const)),
      );
      for (const policy of ['stun', 'all', 'relay'] as const) {
        expect(ways[policy], policy).toContain(found.get(policy) ?? (await meet(policy)));
      }
    });
  }

  test('a server without a way to private addresses relays for those only who try nothing else', async (context) => {
    const world = worldFor(context);
    const stranded = await world.internet.strandedCoturn();
    const name = 'symmetric and symmetric, stranded server';
    expect(await world.meet(name, world.symmetric, 'all', DOOMED_MS, stranded)).toBe('none');
    expect(await world.meet(name, world.symmetric, 'relay', PATIENCE_MS, stranded)).toBe('relayed');
  });

  describe('coturn', () => {
    /** Kinds of what two hosts gathered with this server of TURN alone. */
    async function gathered(world: World, server: Partial<IceServer>): Promise<(readonly string[])[]> {
      const { iceServers, ...rest } = await world.configuration('relay');
      const configuration = { ...rest, iceServers: iceServers.map((one) => Object.assign({}, one, server)) };
      const reports = await attempt(world.open, world.symmetric[0], { configuration, patienceMs: PATIENCE_MS });
      return reports.map((report) => report.gathered);
    }

    test('relays for those only whose credentials are signed and have not expired', async (context) => {
      const world = worldFor(context);
      const { secret } = await world.coturn;
      expect(await gathered(world, credentialsOf(secret))).toEqual([['relay'], ['relay']]);
      // Its clock goes on once a second, and later on a busy machine.
      expect(await gathered(world, credentialsOf(secret, -60))).toEqual([[], []]);
      expect(await gathered(world, credentialsOf('another secret'))).toEqual([[], []]);
    });

    test('can be reached by TCP where UDP is blocked, but node-datachannel does not go that way', async (context) => {
      const world = worldFor(context);
      const { address, port } = await world.coturn;
      const asking = world.behindFirewall.node('-e', [BIND_OVER_TCP, address, `${port}`]);
      expect(await asking.ended).toBe('0');
      expect(asking.output).toBe('0101');
      expect(await gathered(world, { relayType: 'TurnTcp' })).toEqual([[], []]);
    });
  });
});
