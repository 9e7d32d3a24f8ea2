/** The public face of a coordinator. What serves it is loaded when one is started, so that peers don't carry it. */
import type { CoordinatorListenOptions } from './engine/coordinator-options.ts';
import type { CoordinatorServer } from './engine/coordinator-server.ts';

/** The process that peers must be able to find: it says who is a member, and what becomes of a call when one is lost. `skein coordinator` is one. */
export class Coordinator {
  readonly #server: CoordinatorServer;

  /**
   * Starts a coordinator.
   *
   * @example const coordinator = await Coordinator.listen({ port: 0 }); console.log(coordinator.address);
   * @throws ArgumentError when it would listen beyond loopback without a token
   * @throws ConnectError when the port is taken
   */
  static async listen(options: CoordinatorListenOptions = {}): Promise<Coordinator> {
    const { CoordinatorServer } = await import('./engine/coordinator-server.ts');
    return new Coordinator(await CoordinatorServer.listen(options));
  }

  private constructor(server: CoordinatorServer) {
    this.#server = server;
  }

  /** Where peers find it: `tcp://host:port`. */
  get address(): string {
    return this.#server.address;
  }

  /** Its HTTP port, `http://host:port`, or null. Browsers join by the same with `ws://`. */
  get httpAddress(): string | null {
    return this.#server.httpAddress;
  }

  /** Whether it leads: always, unless it shares a store with others and stands by. */
  get isLeading(): boolean {
    return this.#server.isLeading;
  }

  /** What each run looks like now: plain data, for status pages and tests. */
  status(): ReturnType<CoordinatorServer['status']> {
    return this.#server.status();
  }

  /** Stops: every connection is closed, and peers find that they have lost their coordinator. May be called twice. */
  close(): Promise<void> {
    return this.#server.close();
  }

  /** As `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
