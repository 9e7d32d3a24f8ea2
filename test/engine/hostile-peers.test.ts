/** What a peer that knows the token can't do to a coordinator, or a coordinator that knows it to a peer. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { UNMEASURED } from '../../src/costs.ts';
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { Runtime } from '../../src/engine/runtime.ts';
import { CoordinatorMachine } from '../../src/membership/coordinator.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { tcpTransport } from '../../src/transport/tcp.ts';
import type { Address, Connection } from '../../src/transport/transport.ts';
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { HANDSHAKE_TIMEOUT_MS, MAX_RUNS, MAX_WORLD_SIZE } from '../../src/wire/limits.ts';
import { encodeControl } from '../../src/wire/messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import { HostilePeer, ignore, write } from '../fuzz/hostile.ts';
import { greetAsCoordinator } from '../fuzz/impostor.ts';

const LOOPBACK: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 };

const closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A coordinator whose time stands still unless the test lets it pass. */
async function coordinator(): Promise<{ readonly server: CoordinatorServer; readonly clock: VirtualClock }> {
  const clock = new VirtualClock();
  const server = await CoordinatorServer.listenAt(LOOPBACK, {}, { ...systemPlatform, clock }, 0);
  closing.push(() => server.close());
  return { server, clock };
}

async function join(server: CoordinatorServer, run: string): Promise<HostilePeer> {
  const peer = await HostilePeer.join(server.address, run, '');
  closing.push(() => peer.vanish());
  return peer;
}

describe('a coordinator', () => {
  test('closes the connection of a peer that left and does not close its own side', async () => {
    const { server, clock } = await coordinator();
    const peer = await join(server, 'run');
    const { control } = peer;
    const events: string[] = [];
    const ended = new Promise<void>((resolve) => {
      // It hears the farewell, and keeps its side open.
      control.handler = { onData: () => {}, onEnd: () => resolve(void events.push('end')), onClose: () => {} };
    });
    peer.say({ type: 'leave' });
    await ended;
    const gone = new Promise<void>((resolve) => {
      control.handler = { onData: () => {}, onEnd: () => {}, onClose: () => resolve(void events.push('close')) };
    });
    clock.advance(HANDSHAKE_TIMEOUT_MS);
    // What is written to a connection that is gone comes back as a reset.
    await write(control, new Uint8Array(1)).then(() => write(control, new Uint8Array(1)));
    await gone;
    expect(events).toEqual(['end', 'close']);
  });

  test('forgets the oldest run that everybody left when there are too many', async () => {
    const { server } = await coordinator();
    const kept = await join(server, 'kept');
    for (let index = 0; index < MAX_RUNS + 2; index++) {
      const peer = await HostilePeer.join(server.address, `run ${index}`, '');
      const admitted = peer.hears('admitted');
      peer.say({ type: 'ready' });
      await admitted; // the run has an epoch now, and is remembered for it
      peer.say({ type: 'leave' });
      await peer.vanish();
    }
    const names = Object.keys(server.status());
    expect(names.length).toBeLessThanOrEqual(MAX_RUNS);
    expect(names).toContain('kept');
    expect(names).not.toContain('run 0');
    expect(kept.control.closed).toBe(false);
  });

  test('refuses peers beyond what a run may have, whom nobody could be told of', async () => {
    const { server } = await coordinator();
    // A thousand of them would introduce one another for a minute.
    const size = vi.spyOn(CoordinatorMachine.prototype, 'size', 'get').mockReturnValue(MAX_WORLD_SIZE);
    try {
      await expect(HostilePeer.join(server.address, 'run', '')).rejects.toThrow(`${MAX_WORLD_SIZE} peers in this run`);
    } finally {
      size.mockRestore();
    }
    expect((await join(server, 'run')).welcome.peers).toEqual([]);
  });
});

/** A coordinator that welcomes whoever comes, and then says what it is told to. */
async function impostor(...says: readonly CoordinatorMessage[]): Promise<Address> {
  const opened: Connection[] = [];
  const listener = await tcpTransport.listen(LOOPBACK, (connection) => {
    opened.push(connection);
    greetAsCoordinator(connection, '', () => {
      const send = (message: CoordinatorMessage) => write(connection, encodeControl(message, 1, 0));
      void send({
        type: 'welcome',
        peerId: 'me',
        isUnderWay: false,
        heartbeatMs: 100,
        boundMs: 10_000,
        ice: { servers: [], validMs: 1_000 },
        peers: [],
      });
      const onData = async () => {
        ignore(connection);
        for (const message of says) await send(message);
      };
      // By then the peer is ready to be let in.
      connection.handler = { ...connection.handler, onData: () => void onData() };
    });
  });
  closing.push(() => listener.close());
  closing.push(async () => {
    for (const connection of opened) connection.destroy();
  });
  return listener.address;
}

function runtime(address: Address) {
  const options = {
    run: 'run',
    token: '',
    security: resolveSecurity({}, ''),
    minWorldSize: 1,
    startWorldSize: 1,
    name: '',
    site: '',
    stripes: 1,
    timeoutMs: 20_000,
  };
  return Runtime.join({ ...options, coordinators: [address], transports: ['tcp'] }, () => {}, systemPlatform);
}

function view(generation: number, ...ids: readonly string[]): WireView {
  return {
    epoch: generation,
    generation,
    boundary: 1,
    members: ids.map((peerId) => ({ peerId, site: '', place: 0 })),
    cuts: [],
    costs: UNMEASURED,
  };
}

describe('a peer', () => {
  test.each([
    ['a view without this peer', view(1, 'other')],
    ['a view with the same member twice', view(1, 'me', 'me')],
    ['a view that is not new', view(0, 'me')],
  ])('listens no more to a coordinator that sends it %s', async (reason, wrong) => {
    const address = await impostor({ type: 'admitted', index: 1, view: wrong, joined: [], failed: [], excluded: [] });
    await expect(runtime(address)).rejects.toMatchObject({
      code: 'SKEIN_PROTOCOL',
      message: expect.stringContaining(reason),
    });
  });

  test('listens no more to a coordinator that tells it of its own loss', async () => {
    const address = await impostor(
      { type: 'admitted', index: 1, view: view(1, 'me', 'other'), joined: [], failed: [], excluded: [] },
      { type: 'loss', epoch: 2, lost: [{ peerId: 'me', reason: 'so' }], broken: null, cuts: [], resumed: false },
    );
    const { runtime: joined } = await runtime(address);
    closing.push(() => joined.close());
    await expect(joined.admit(1, 20_000)).rejects.toMatchObject({ code: 'SKEIN_PROTOCOL' });
  });

  test('comes in although another one tells addresses at which nobody answers', async () => {
    const server = await CoordinatorServer.listen({ port: 0 });
    closing.push(() => server.close());
    // It takes connections, and never says a word.
    const silent: Connection[] = [];
    const listener = await tcpTransport.listen(LOOPBACK, (connection) => void silent.push(connection));
    closing.push(() => listener.close());
    closing.push(async () => {
      for (const connection of silent) connection.destroy();
    });
    const addresses = Array.from({ length: 16 }, () => listener.address);
    const hole = await HostilePeer.join(server.address, 'run', '', addresses);
    closing.push(() => hole.vanish());
    const { runtime: joined } = await runtime(parseTcpAddress(server.address));
    await joined.close();
  });
});
