/**
 * The collectives of this peer, from its caller's tensors to the engine and back: each is checked, staged and handed to the engine, and
 * ends with what became of it.
 *
 * Invariants: what a call has borrowed is given back however it ends. The result is in the caller's memory only after success, but for
 * the parts of a stream that are told one by one.
 */
import type { PeerId, Report, StreamSpec } from '../collectives/call.ts';
import { tensorSizes } from '../collectives/plan.ts';
import type { CollectiveKind } from '../collectives/program.ts';
import type { Engine, EngineMessage, EngineRequest, PlainOutcome } from '../engine/protocol.ts';
import { fromPlainError } from '../errors.ts';
import type { Observer } from '../observe.ts';
import { type AllReduceOptions, resolveCall } from '../options.ts';
import { type Staged, Staging } from '../staging.ts';
import { AllReduceStream, DoneQueue } from '../stream.ts';
import { DTYPE_BYTES } from '../tensor.ts';
import type { CallSpan, traceCall } from '../trace.ts';
import { bytesOf, type Shape } from './shape.ts';

/** What calls take where they are told nothing else. */
interface CallDefaults {
  readonly timeoutMs: number;
  readonly minWorldSize: number;
}

interface Surroundings {
  readonly engine: Engine;
  readonly self: PeerId;
  readonly defaults: CallDefaults;
  /** Members of the view. */
  readonly worldSize: () => number;
  /** A call is on its way. */
  readonly onBegun: () => void;
  readonly observer: Observer | null;
  readonly trace: typeof traceCall | null;
}

/** A call that can be handed to the engine. */
interface Prepared {
  readonly staged: Staged;
  readonly span: CallSpan | null;
  readonly request: Extract<EngineRequest, { type: 'call' }>;
}

interface OpenCall {
  part(start: number, end: number, retry: number): void;
  settle(outcome: PlainOutcome): void;
  progress(share: number): void;
}

/** Collectives after which all members hold the same result. */
const SHARED_RESULTS: ReadonlySet<CollectiveKind> = new Set(['allReduce', 'broadcast', 'allGather']);

export class Calls {
  readonly #around: Surroundings;
  readonly #staging: Staging;
  readonly #open: Map<number, OpenCall> = new Map();
  readonly #pending: Set<Promise<void>> = new Set();
  #next = 1;

  constructor(around: Surroundings) {
    this.#around = around;
    this.#staging = new Staging(around.engine.isThread);
  }

  start(shape: Shape, options: AllReduceOptions): Promise<Report> {
    return this.#run(shape, options, this.#prepare(shape, options, null), null);
  }

  /** Blocks the calling thread until the call has ended. */
  startSync(shape: Shape, options: AllReduceOptions): Report {
    const prepared = this.#prepare(shape, options, null);
    const wake = new Int32Array(new SharedArrayBuffer(4));
    try {
      return this.#conclude(shape, prepared, this.#around.engine.callSync({ ...prepared.request, wake }));
    } finally {
      prepared.staged.release();
    }
  }

  /** Of a tensor that is still being computed. */
  stream(shape: Shape, options: AllReduceOptions): AllReduceStream {
    const prepared = this.#prepare(shape, options, { handsBack: !shape.inPlace });
    const done = new DoneQueue();
    const report = this.#run(shape, options, prepared, done);
    const { staged, request } = prepared;
    const { call } = request;
    const size = DTYPE_BYTES[shape.dtype];
    const counts = shape.input.map((part) => part.count);
    return new AllReduceStream(counts, report, done, (start, end) => {
      if (!this.#open.has(call)) return;
      staged.send(start * size, end * size);
      this.#around.engine.post({ type: 'ready', call, start, end });
    });
  }

  /** Resolves when all that are open now have ended. */
  async ended(): Promise<void> {
    await Promise.all([...this.#pending]);
  }

  onMessage(message: Extract<EngineMessage, { type: 'progress' | 'part' | 'settled' }>): void {
    const open = this.#open.get(message.call);
    switch (message.type) {
      case 'progress':
        open?.progress(message.share);
        break;
      case 'part':
        open?.part(message.start, message.end, message.retry);
        break;
      case 'settled':
        this.#open.delete(message.call);
        open?.settle(message.outcome);
        break;
      default:
        message satisfies never;
    }
  }

  #prepare(shape: Shape, options: AllReduceOptions, stream: StreamSpec | null): Prepared {
    const { defaults, worldSize, onBegun, observer, trace } = this.#around;
    const resolved = resolveCall(options, { ...defaults, worldSize: worldSize() }, shape);
    const staged = this.#staging.prepare(shape.input, shape.output, shape.inPlace);
    if (stream === null) staged.send(0, bytesOf(shape.input));
    const call = this.#next++;
    onBegun();
    const { kind, dtype, count, root, laidOutFor } = shape;
    observer?.note({ type: 'begun', kind });
    const { input, output, atomic } = staged;
    const op = shape.reduces ? resolved.op : null;
    const tensors = shape.input.map((part) => part.count);
    const guard = resolved.guard === null ? null : { ...resolved.guard, tensors };
    const spec = { ...resolved, kind, dtype, op, guard, count, root, laidOutFor, stream, input, output, atomic };
    const request = { type: 'call' as const, call, spec, progress: options.onProgress !== undefined, wake: null };
    const span = trace?.(() => ({ ...spec, bytes: bytesOf(shape.input) })) ?? null;
    return { staged, request, span };
  }

  /** @param done where it is told of parts of the result; null: nobody asks for them */
  #run(shape: Shape, options: AllReduceOptions, prepared: Prepared, done: DoneQueue | null): Promise<Report> {
    const { engine } = this.#around;
    const { staged, request } = prepared;
    const { signal, onProgress } = options;
    const { call, spec } = request;
    const handsBack = spec.stream?.handsBack === true;
    const size = DTYPE_BYTES[shape.dtype];
    const result = new Promise<Report>((resolve, reject) => {
      const onAbort = () => engine.post({ type: 'cancel', call });
      this.#open.set(call, {
        progress: (share) => onProgress?.(share),
        part: (start, end, retry) => {
          staged.fetch(start * size, end * size);
          done?.push({ start, end, retry });
        },
        settle: (outcome) => {
          signal?.removeEventListener('abort', onAbort);
          try {
            const report = this.#conclude(shape, prepared, outcome, handsBack);
            if (!handsBack) done?.push({ start: 0, end: shape.count, retry: report.retries });
            resolve(report);
          } catch (error) {
            reject(signal?.aborted === true ? signal.reason : error);
          } finally {
            done?.end(outcome.ok);
            staged.release();
          }
        },
      });
      engine.post(request);
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
    const forget = () => void this.#pending.delete(tracked);
    const tracked: Promise<void> = result.then(forget, forget);
    this.#pending.add(tracked);
    return result;
  }

  /** @param fetched the result is where the caller wants it */
  #conclude(shape: Shape, { staged, span }: Prepared, outcome: PlainOutcome, fetched = false): Report {
    const { self, observer } = this.#around;
    if (!outcome.ok) {
      const { code, message } = outcome.error;
      observer?.note({ type: 'failed', code, message });
      const error = fromPlainError(outcome.error);
      span?.failed(error);
      throw error;
    }
    const { report } = outcome;
    const rank = report.contributors.indexOf(self);
    const root = shape.root === null ? 0 : report.contributors.indexOf(shape.root);
    const { kind, count, dtype } = shape;
    const sizes = tensorSizes({ kind, worldSize: report.worldSize, count, root }, rank);
    if (!fetched) staged.fetch(0, sizes.output * DTYPE_BYTES[dtype]);
    observer?.settled(report, SHARED_RESULTS.has(kind) ? shape.output : null);
    span?.done(report);
    return report;
  }
}
