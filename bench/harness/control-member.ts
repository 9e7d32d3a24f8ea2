/**
 * A member that has nothing but its control connection: the real client of a coordinator, over a real socket, and answers as
 * an engine gives them. So a thousand of them fit into one process, and what is measured is the coordinator.
 */
import { CoordinatorClient } from '../../src/engine/coordinator-client.ts';
import { type Platform, systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import type { PeerId } from '../../src/membership/events.ts';
import { every } from '../../src/transport/clock.ts';
import type { Address, Connection, ConnectionHandler } from '../../src/transport/transport.ts';
import type { CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';

/** What all members together have sent and received. */
export class Traffic {
  sentMessages = 0;
  receivedMessages = 0;
  sentBytes = 0;
  receivedBytes = 0;
}

/** How many members must be there before the first view is formed, and whom it tells. */
interface Joining {
  readonly address: Address;
  readonly startWorldSize: number;
  readonly traffic: Traffic;
}

type Waiting = Map<string, () => void>;

export class ControlMember {
  view: WireView | null = null;
  /** The last boundary that it has passed. */
  boundary = 0;
  epoch = 0;
  readonly #client: CoordinatorClient;
  readonly #traffic: Traffic;
  readonly #stopBeats: () => void;
  /** What it waits for: a name for each, and what to do when it comes. */
  readonly #waiting: Waiting;

  /** Connects, and is ready to be admitted. */
  static async join({ address, startWorldSize, traffic }: Joining): Promise<ControlMember> {
    const early: CoordinatorMessage[] = [];
    const waiting: Waiting = new Map();
    let member: ControlMember | null = null;
    const fail = (reason: string) => {
      throw new Error(`a member lost the coordinator: ${reason}`);
    };
    const client = await CoordinatorClient.connect(
      counted(traffic),
      [address],
      {
        run: 'benchmark',
        token: '',
        security: resolveSecurity({}, ''),
        startWorldSize,
        name: '',
        description: {
          hostKey: 'benchmark',
          site: '',
          addresses: [{ kind: 'tcp', host: '127.0.0.1', port: 9 }],
          cores: 1,
        },
        transports: ['tcp'],
      },
      {
        onMessage: (message) => {
          traffic.receivedMessages += 1;
          if (member === null) early.push(message);
          else member.#receive(message);
        },
        onLost: (reason) => {
          if (member !== null && !member.gone) fail(reason);
        },
        onBack: () => {},
        onRefused: (error) => fail(error.message),
        report: () => fail('it would have to report'),
      },
    );
    member = new ControlMember(client, traffic, waiting);
    for (const message of early) member.#receive(message);
    member.send({ type: 'ready' });
    return member;
  }

  /** It was killed, or has left. */
  gone = false;

  private constructor(client: CoordinatorClient, traffic: Traffic, waiting: Waiting) {
    this.#client = client;
    this.#traffic = traffic;
    this.#waiting = waiting;
    this.#stopBeats = every(systemPlatform.clock, client.welcome.heartbeatMs, () => this.send({ type: 'beat' }));
  }

  get peerId(): PeerId {
    return this.#client.welcome.peerId;
  }

  send(message: PeerMessage): void {
    this.#traffic.sentMessages += 1;
    this.#client.send(message);
  }

  /** Holds its result of this collective; resolves when the coordinator has said that all do. */
  hold(sequence: number): Promise<void> {
    const { generation } = this.view!; // only members are asked to
    const id = `${generation}:benchmark:${sequence}`;
    const committed = this.#next(`commit ${id}`);
    this.send({ type: 'done', id, generation, epoch: this.epoch, spare: 0 });
    return committed;
  }

  /** Comes to the next boundary; resolves when it may pass. */
  async admit(): Promise<void> {
    const { generation } = this.view!; // only members are asked to
    const index = this.boundary + 1;
    const passed = this.#next(`boundary ${index}`);
    this.send({ type: 'boundary', index, passed: this.boundary, minWorldSize: 1, oldest: generation });
    await passed;
  }

  /** Resolves when it is in a view. */
  admitted(): Promise<void> {
    return this.view === null ? this.#next('admitted') : Promise.resolve();
  }

  /** Resolves when the next loss was told, answered and decided. */
  decided(): Promise<void> {
    return this.#next('decide');
  }

  /** As another member that sees its link to this one close. */
  sawClose(peerId: PeerId): void {
    this.send({ type: 'link-closed', peerId });
  }

  /** Closes at once, as a process that is killed. */
  kill(): void {
    this.gone = true;
    this.#stopBeats();
    this.#client.close();
  }

  #next(what: string): Promise<void> {
    return new Promise((resolve) => void this.#waiting.set(what, resolve));
  }

  #came(what: string): void {
    const resolve = this.#waiting.get(what);
    this.#waiting.delete(what);
    resolve?.();
  }

  #receive(message: CoordinatorMessage): void {
    switch (message.type) {
      case 'admitted':
        this.#install(message.view, message.index);
        this.#came('admitted');
        break;
      case 'boundary':
        if (message.view !== null) this.#install(message.view, message.index);
        this.boundary = message.index;
        this.#came(`boundary ${message.index}`);
        break;
      case 'commit':
        this.#came(`commit ${message.id}`);
        break;
      case 'loss':
        this.epoch = message.epoch;
        this.send({ type: 'progress', epoch: message.epoch, held: [], returned: [], finished: [] });
        break;
      case 'decide':
        this.#came('decide');
        break;
      case 'evicted':
        throw new Error(`${this.peerId} was evicted: ${message.reason}`);
      default: // it knows nobody, and has nothing to answer
    }
  }

  #install(view: WireView, boundary: number): void {
    this.view = view;
    this.epoch = Math.max(this.epoch, view.epoch);
    this.boundary = boundary;
  }
}

/** The real platform, counting the bytes of control connections. */
function counted(traffic: Traffic): Platform {
  return {
    ...systemPlatform,
    async dialCoordinator(...how) {
      const connection = await systemPlatform.dialCoordinator(...how);
      return new Proxy(connection, {
        get(target, property) {
          if (property === 'write') {
            const write: Connection['write'] = (head, body, onFlushed) => {
              traffic.sentBytes += head.length + (body?.length ?? 0);
              target.write(head, body, onFlushed);
            };
            return write;
          }
          const value: unknown = Reflect.get(target, property, target);
          return typeof value === 'function' ? value.bind(target) : value;
        },
        set(target, property, value: unknown) {
          return Reflect.set(
            target,
            property,
            property === 'handler' ? counting(value as ConnectionHandler, traffic) : value, // its type says so
            target,
          );
        },
      });
    },
  };
}

function counting(handler: ConnectionHandler, traffic: Traffic): ConnectionHandler {
  return {
    ...(handler.onFlushed === undefined ? {} : { onFlushed: () => handler.onFlushed?.() }),
    onData: (bytes) => {
      traffic.receivedBytes += bytes.length;
      handler.onData(bytes);
    },
    onEnd: () => handler.onEnd(),
    onClose: (error) => handler.onClose(error),
  };
}
