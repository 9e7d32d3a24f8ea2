/** What the training thread and the engine tell one another, as data that can cross threads. */
import type { CallSpec, PeerId, Report } from '../collectives/call.ts';
import type { PlainError } from '../errors.ts';
import type { Prefetched, StateAsk, StateSpec } from '../state/asks.ts';
import type { NotesMessage } from '../wire/peer-messages.ts';
import type { Admission, RuntimeEvent, RuntimeOptions } from './runtime-data.ts';

export type EngineRequest =
  /** `state`: of which the members' contents are fetched before this peer is one. */
  | { readonly type: 'join'; readonly options: RuntimeOptions; readonly state: StateSpec | null }
  /** `wake`: an `Int32Array` of one element that is set to 1 and notified when the call has ended. */
  | {
      readonly type: 'call';
      readonly call: number;
      readonly spec: CallSpec;
      readonly progress: boolean;
      readonly wake: Int32Array | null;
    }
  /** Elements of the input of a call that streams are there, each once. */
  | { readonly type: 'ready'; readonly call: number; readonly start: number; readonly end: number }
  | { readonly type: 'cancel'; readonly call: number }
  | { readonly type: 'drop-feedback'; readonly tag: string | null }
  | { readonly type: 'admit'; readonly request: number; readonly minWorldSize: number; readonly timeoutMs: number }
  | { readonly type: 'state'; readonly request: number; readonly ask: StateAsk }
  | { readonly type: 'status'; readonly request: number }
  | { readonly type: 'flight'; readonly request: number }
  /** To the coordinator; null: one that came was read. */
  | { readonly type: 'notes'; readonly message: NotesMessage | null }
  /** Write the flight record to its folder, if there is one. */
  | { readonly type: 'dump'; readonly reason: string }
  | { readonly type: 'leave'; readonly request: number }
  | { readonly type: 'close'; readonly request: number };

export type PlainOutcome =
  | { readonly ok: true; readonly report: Report }
  | { readonly ok: false; readonly error: PlainError };

export type Reply =
  /** `admit`: an `Admission`, `state`: one of `StateAnswers`, `status`: a `RuntimeStatus`, `flight`: a `FlightDump`, else nothing. */
  { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: PlainError };

export type EngineMessage =
  | {
      readonly type: 'joined';
      readonly peerId: PeerId;
      readonly admission: Admission;
      readonly prefetched: Prefetched | null;
    }
  | { readonly type: 'join-failed'; readonly error: PlainError }
  | { readonly type: 'event'; readonly event: RuntimeEvent }
  | { readonly type: 'progress'; readonly call: number; readonly share: number }
  /** As `CallListener.onPart`. */
  | {
      readonly type: 'part';
      readonly call: number;
      readonly start: number;
      readonly end: number;
      readonly retry: number;
    }
  | { readonly type: 'settled'; readonly call: number; readonly outcome: PlainOutcome }
  | { readonly type: 'reply'; readonly request: number; readonly reply: Reply };

/** The training thread's side of an engine. */
export interface Engine {
  /** Tensors must be on shared memory to cross. */
  readonly isThread: boolean;
  /** Milliseconds, monotonic, by the clock that the engine goes by: in a simulation it is not the system's. */
  now(): number;
  post(request: EngineRequest): void;
  /** Blocks until the call has ended. Only where the engine is a thread of its own. */
  callSync(request: Extract<EngineRequest, { type: 'call' }>): PlainOutcome;
  /** Releases the engine's thread. */
  terminate(): Promise<void>;
}
