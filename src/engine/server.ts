/** Serves one training thread: turns its requests into calls of the runtime, and what comes of them into messages. */
import { toPlainError } from '../errors.ts';
import type { Platform } from './platform.ts';
import type { EngineMessage, EngineRequest, Reply } from './protocol.ts';
import { Runtime } from './runtime.ts';

export class EngineServer {
  readonly #platform: Platform;
  readonly #post: (message: EngineMessage) => void;
  /** Tells of a call whose caller sleeps until it has ended. */
  readonly #postSync: (message: EngineMessage, wake: Int32Array) => void;
  #runtime: Runtime | null = null;
  /** On its way into a run. */
  #entering: Runtime | null = null;
  #isClosed = false;

  constructor(
    platform: Platform,
    post: (message: EngineMessage) => void,
    postSync: (message: EngineMessage, wake: Int32Array) => void,
  ) {
    this.#platform = platform;
    this.#post = post;
    this.#postSync = postSync;
  }

  handle(request: EngineRequest): void {
    switch (request.type) {
      case 'join':
        void this.#join(request);
        break;
      case 'call':
        this.#call(request);
        break;
      case 'ready':
        this.#runtime?.ready(request.call, request.start, request.end);
        break;
      case 'cancel':
        this.#runtime?.cancel(request.call);
        break;
      case 'drop-feedback':
        this.#runtime?.dropErrorFeedback(request.tag);
        break;
      case 'admit':
        this.#reply(request.request, this.#joined.admit(request.minWorldSize, request.timeoutMs));
        break;
      case 'state':
        this.#reply(request.request, this.#joined.state(request.ask));
        break;
      case 'status':
        this.#reply(request.request, Promise.resolve(this.#joined.status()));
        break;
      case 'flight':
        this.#reply(request.request, Promise.resolve(this.#joined.flight('asked by its own program')));
        break;
      case 'notes':
        this.#runtime?.notes(request.message);
        break;
      case 'dump':
        this.#runtime?.dump(request.reason);
        break;
      case 'leave':
        this.#reply(request.request, this.#runtime?.leave() ?? Promise.resolve());
        break;
      case 'close':
        this.#isClosed = true;
        this.#reply(request.request, (this.#runtime ?? this.#entering)?.close() ?? Promise.resolve());
        break;
      default:
        request satisfies never;
    }
  }

  get #joined(): Runtime {
    if (this.#runtime === null) throw new Error('The engine got a request before it had joined a run.');
    return this.#runtime;
  }

  async #join(request: Extract<EngineRequest, { type: 'join' }>): Promise<void> {
    try {
      const { runtime, admission, prefetched } = await Runtime.join(
        request.options,
        (event) => this.#post({ type: 'event', event }),
        this.#platform,
        request.state,
        (entering) => {
          this.#entering = entering;
          if (this.#isClosed) void entering.close();
        },
      );
      this.#runtime = runtime;
      this.#post({ type: 'joined', peerId: runtime.peerId, admission, prefetched });
    } catch (error) {
      this.#post({ type: 'join-failed', error: toPlainError(error) });
    }
  }

  #call({ call, spec, progress, wake }: Extract<EngineRequest, { type: 'call' }>): void {
    this.#joined.call(call, spec, {
      onProgress: (share) => {
        if (progress) this.#post({ type: 'progress', call, share });
      },
      onPart: (start, end, retry) => this.#post({ type: 'part', call, start, end, retry }),
      onSettled: (result) => {
        const outcome = result.ok ? result : { ok: false as const, error: toPlainError(result.error) };
        const message: EngineMessage = { type: 'settled', call, outcome };
        if (wake === null) this.#post(message);
        else this.#postSync(message, wake);
      },
    });
  }

  #reply(request: number, result: Promise<unknown>): void {
    const answer = (reply: Reply) => this.#post({ type: 'reply', request, reply });
    result.then(
      (value) => answer({ ok: true, value }),
      (error: unknown) => answer({ ok: false, error: toPlainError(error) }),
    );
  }
}
