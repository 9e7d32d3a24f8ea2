/** The collectives of one peer, without network or coordinator: what it would send is written down. */
import type { CallSpec, PeerId } from '../../src/collectives/call.ts';
import { Collectives } from '../../src/collectives/collectives.ts';
import { Inbound, NO_SIGNS } from '../../src/collectives/inbound.ts';
import type { LinkPort } from '../../src/collectives/ports.ts';
import type { Workspace } from '../../src/collectives/workspace.ts';
import { FrameReader } from '../../src/wire/frame.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';

/** An all-reduce of ten values. */
export const SUM: Omit<CallSpec, 'input' | 'output'> = {
  kind: 'allReduce',
  tag: '',
  dtype: 'f32',
  op: 'sum',
  trim: null,
  clipRadius: null,
  codec: 'f32',
  rounding: 'nearest',
  errorFeedback: false,
  measureError: false,
  algorithm: 'ring',
  count: 10,
  root: null,
  laidOutFor: null,
  consistency: 'commit',
  recovery: 'restart',
  stragglers: 'wait',
  minWorldSize: 1,
  timeoutMs: 1_000,
  guard: null,
  stream: null,
  atomic: true,
};

/** Bytes around each tensor that nobody may touch. */
const GUARD_BYTES = 64;
const GUARD = 0xa5;

/** How a call ended: `ok`, or the code of its error. */
type Ending = string;

/** Memory of a tensor, with a guard on both sides. */
class Guarded {
  readonly #memory: Uint8Array;
  readonly bytes: Uint8Array;

  constructor(content: Uint8Array) {
    this.#memory = new Uint8Array(content.length + 2 * GUARD_BYTES).fill(GUARD);
    this.bytes = this.#memory.subarray(GUARD_BYTES, GUARD_BYTES + content.length);
    this.bytes.set(content);
  }

  get intact(): boolean {
    const outside = [...this.#memory.subarray(0, GUARD_BYTES), ...this.#memory.subarray(-GUARD_BYTES)];
    return outside.every((byte) => byte === GUARD);
  }
}

interface LoneCall {
  readonly spec: CallSpec;
  readonly input: Guarded;
  readonly before: Uint8Array;
  readonly output: Guarded;
  ending: Ending | null;
}

export class LonePeer {
  readonly self: PeerId;
  readonly collectives: Collectives;
  /** To the coordinator. */
  readonly controls: PeerMessage[] = [];
  readonly calls: LoneCall[] = [];
  /** Frames that it sent, not taken yet. */
  readonly sent: Uint8Array[] = [];
  sentBytes = 0;
  scratchBytes = 0;
  readonly #unflushed: (() => void)[] = [];
  #now = 0;

  constructor(self: PeerId, workspace: Workspace) {
    this.self = self;
    const link: LinkPort = {
      up: true,
      writable: true,
      queuedBytes: 0,
      cork: () => {},
      uncork: () => {},
      send: (head, body, onFlushed) => {
        this.sentBytes += head.length + (body?.length ?? 0);
        this.sent.push(head.slice(), body?.slice() ?? new Uint8Array(0));
        if (onFlushed !== null) this.#unflushed.push(onFlushed);
      },
    };
    this.collectives = new Collectives({
      self,
      workspace,
      now: () => this.#now,
      link: () => link,
      knows: (peerId) => peerId !== 'stranger',
      control: (message) => void this.controls.push(message),
      takeScratch: (byteLength) => {
        this.scratchBytes += byteLength;
        return new Uint8Array(byteLength);
      },
      giveScratch: (memory) => {
        this.scratchBytes -= memory.length;
      },
    });
  }

  /** Makes a call with a copy of `input`, and room for `outputBytes`. */
  call(spec: Omit<CallSpec, 'input' | 'output'>, input: Uint8Array, outputBytes: number): LoneCall {
    const held = new Guarded(input);
    const output = new Guarded(new Uint8Array(outputBytes));
    const full: CallSpec = { ...spec, input: [held.bytes], output: [output.bytes] };
    const call: LoneCall = { spec: full, input: held, before: input.slice(), output, ending: null };
    this.calls.push(call);
    this.collectives.call(full, {
      onProgress: () => {},
      onPart: () => {},
      onSettled: (outcome) => {
        if (call.ending !== null) throw new Error(`a call ended twice: ${call.ending}`);
        call.ending = outcome.ok ? 'ok' : outcome.error.code;
      },
    });
    return call;
  }

  /** A connection from a peer: what to push its bytes into, and what to call when it is gone. */
  connection(from: PeerId): { readonly push: (bytes: Uint8Array) => string | null; readonly close: () => void } {
    const inbound = new Inbound(from, this.collectives.delivery, NO_SIGNS);
    const reader = new FrameReader(inbound, new Uint8Array(64));
    return { push: (bytes) => reader.push(bytes), close: () => inbound.close() };
  }

  /** The links have taken what they were given so far. */
  flush(): void {
    for (const flushed of this.#unflushed.splice(0)) flushed();
    this.collectives.pump(); // as the engine does
  }

  /** Time passes; calls whose time is over end. */
  advance(ms: number): void {
    this.#now += ms;
    this.collectives.tick();
  }

  /** What became of memory that nobody but its owner may write; null if nothing did. */
  damage(): string | null {
    for (const { input, before, output, spec } of this.calls) {
      if (!input.intact || !output.intact) return `${spec.kind} ${spec.tag} wrote beyond its tensor`;
      if (Buffer.compare(input.bytes, before) !== 0) return `${spec.kind} ${spec.tag} wrote to its input`;
    }
    return null;
  }
}
