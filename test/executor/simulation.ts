/**
 * All ranks of one collective in memory, through the real executor, frames and kernels. A seed decides what happens next:
 * which link takes bytes, which piece of a stream arrives, who starts late. Bytes in flight are copied only when they leave,
 * so whoever writes to them too early corrupts a result.
 */
import type { Codec } from '../../src/collectives/codec.ts';
import { FrameCursor, Transfer } from '../../src/collectives/executor.ts';
import { Pieces } from '../../src/collectives/pieces.ts';
import { makePlan, tensorSizes } from '../../src/collectives/plan.ts';
import type { PlanRequest, Rank } from '../../src/collectives/program.ts';
import type { SegmentPort } from '../../src/collectives/transfer-spec.ts';
import { NO_SLOT, Workspace } from '../../src/collectives/workspace.ts';
import { loadKernels } from '../../src/kernels/load.ts';
import { DTYPE_BYTES, type Dtype, type ReduceOp } from '../../src/tensor.ts';
import { FrameReader } from '../../src/wire/frame.ts';
import type { Span } from '../../src/wire/ranges.ts';
import { randomFrom } from '../collectives/interpreter.ts';

/** Small, so that a few hundred elements are several segments. */
export const SEGMENT_BYTES = 64;

const MOST_RANKS = 16;

const kernels = await loadKernels(96 * 1024 * 1024);

/** Of codecs with blocks, so that a few thousand elements are several segments: of 4 blocks, or 1 of topk. */
const BLOCK_SEGMENT_BYTES: Readonly<Record<Codec, number>> = {
  f32: SEGMENT_BYTES,
  bf16: SEGMENT_BYTES,
  f16: SEGMENT_BYTES,
  int8: 1_024,
  int4: 768,
  e3m0: 1_024,
  topk: 16_384,
};

const sizes = [...new Set(Object.values(BLOCK_SEGMENT_BYTES))];

/** One per rank and size of segments, used by every simulation: what one of them leaks, the next one misses. */
const workspacesOf = new Map(
  sizes.map((size) => [size, Array.from({ length: MOST_RANKS }, () => new Workspace(kernels, size))]),
);

function takeAll(acquire: () => number): number[] {
  const taken: number[] = [];
  for (let slot = acquire(); slot !== NO_SLOT; slot = acquire()) taken.push(slot);
  return taken;
}

/** Slots that nobody holds, of both kinds. */
export function freeSlots(): string {
  return [...workspacesOf.values()]
    .flat()
    .map((workspace) => {
      const taken = takeAll(() => workspace.acquire());
      const wire = takeAll(() => workspace.acquireWire());
      for (const slot of [...taken, ...wire]) workspace.release(slot);
      return `${taken.length}+${wire.length}`;
    })
    .join(' ');
}

export interface Scenario {
  readonly request: PlanRequest;
  readonly dtype: Dtype;
  /** null for kinds that reduce nothing. */
  readonly op: ReduceOp | null;
  /** Of robust averages. */
  readonly trim?: number;
  readonly clipRadius?: number;
  readonly codec: Codec;
  /** What each rank drops goes to its own input, corrected; encoding by chance with this seed. */
  readonly observed?: { readonly dropped: readonly Uint8Array[]; readonly chanceSeed: number | null };
  readonly seed: number;
  /** The inputs come in parts, drawn for each rank: what is not ready yet is garbage. */
  readonly streams?: boolean;
  /** Slots that others hold, on every rank. */
  readonly slotsTaken: number;
  /** All ranks stop after so many events, as when a peer is lost; null: never. */
  readonly cancelAfter: number | null;
}

function workspacesFor({ codec }: Scenario): readonly Workspace[] {
  return workspacesOf.get(BLOCK_SEGMENT_BYTES[codec])!; // all are there
}

/** The stream of one direction between two ranks. */
class Wire implements SegmentPort {
  readonly #limit: number;
  readonly #queue: { readonly head: Uint8Array; readonly body: Uint8Array | null; readonly onFlushed: () => void }[] =
    [];
  #arrived: Uint8Array[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get writable(): boolean {
    return this.#queue.length < this.#limit;
  }

  send(head: Uint8Array, body: Uint8Array | null, onFlushed: () => void): void {
    this.#queue.push({ head, body, onFlushed });
  }

  get canFlush(): boolean {
    return this.#queue.length > 0;
  }

  get canDeliver(): boolean {
    return this.#arrived.length > 0;
  }

  flush(): void {
    const { head, body, onFlushed } = this.#queue.shift()!;
    this.#arrived.push(head.slice());
    if (body !== null && body.length > 0) this.#arrived.push(body.slice());
    onFlushed();
  }

  /** Up to `most` bytes of what has arrived. */
  take(most: number): Uint8Array {
    const all = Buffer.concat(this.#arrived);
    const taken = new Uint8Array(all.subarray(0, most));
    const rest = new Uint8Array(all.subarray(most));
    this.#arrived = rest.length > 0 ? [rest] : [];
    return taken;
  }
}

/** What an input has where nobody has filled it yet. */
const UNFILLED = 0xdb;

/** Cuts `count` elements in up to 8 parts, in any order. */
function partsOf(count: number, random: () => number): Span[] {
  const cuts = Array.from({ length: Math.floor(random() * 8) }, () => Math.floor(random() * (count + 1)));
  const ends = [...cuts, count].sort((left, right) => left - right);
  return ends
    .map((end, index) => ({ key: random(), start: ends[index - 1] ?? 0, end }))
    .sort((left, right) => left.key - right.key)
    .map(({ start, end }) => ({ start, end }));
}

class Participant {
  readonly transfer: Transfer;
  readonly output: Uint8Array;
  /** Parts of the input that are still to come. */
  readonly missing: Span[];
  /** What was said to be finished, with the bytes that it had then. */
  readonly finished: { readonly start: number; readonly bytes: Uint8Array }[] = [];
  readonly #filled: Uint8Array;
  readonly #input: Uint8Array;
  readonly #elementBytes: number;
  readonly #cuts: (bound: number) => number;
  held = false;
  started = false;
  readonly shares: number[] = [];

  constructor(scenario: Scenario, rank: Rank, input: Uint8Array, wireTo: (to: Rank) => Wire) {
    const { request, dtype, op, codec, streams = false } = scenario;
    const size = DTYPE_BYTES[dtype];
    this.#elementBytes = size;
    this.#filled = input;
    this.#input = streams ? new Uint8Array(input.length).fill(UNFILLED) : input;
    const random = randomFrom(scenario.seed * 31 + rank);
    // Whole in most cases.
    const isWhole = random() < 0.5;
    this.#cuts = (bound) => (isWhole ? 0 : Math.floor(random() * bound));
    const early: Span[] = [];
    this.missing = streams ? partsOf(input.length / size, random) : [];
    if (streams) {
      // Some are there before the attempt begins, as after a restart.
      if (random() < 0.3) early.push(...this.missing.splice(0, Math.floor(random() * 8)));
      for (const part of early) this.#fill(part);
    }
    this.output = new Uint8Array(tensorSizes(request, rank).output * DTYPE_BYTES[dtype]).fill(0xcc);
    this.transfer = new Transfer(workspacesFor(scenario)[rank]!, {
      plan: makePlan(request, rank),
      rank,
      frame: { epoch: 1, generation: 1, tag: 7, sequence: 0 },
      dtype,
      op,
      trim: scenario.trim ?? null,
      clipRadius: scenario.clipRadius ?? null,
      codec,
      seed: scenario.observed?.chanceSeed ?? null,
      measures: scenario.observed !== undefined,
      dropped: scenario.observed?.dropped[rank] ?? null,
      contributors: request.worldSize,
      input: this.#pieces(this.#input, 3),
      ready: streams ? early.sort((left, right) => left.start - right.start) : null,
      output: this.#pieces(this.output, 5),
      port: wireTo,
      scratch: (byteLength) => new Uint8Array(byteLength),
      onHeld: () => {
        if (this.held) throw new Error(`rank ${rank} holds its result twice`);
        this.held = true;
      },
      onDrained: () => undefined,
      onProgress: (share) => void this.shares.push(share),
      traffic: null,
      onFinished: streams
        ? (start, end) => void this.finished.push({ start, bytes: this.output.slice(start * size, end * size) })
        : null,
    });
  }

  /** A tensor's memory, in one piece or cut in several. */
  #pieces(memory: Uint8Array, most: number): Pieces {
    const size = this.#elementBytes;
    const cuts = Array.from({ length: this.#cuts(most) }, () => this.#cuts(memory.length / size + 1) * size);
    const ends = [...cuts, memory.length].sort((left, right) => left - right);
    return new Pieces(ends.map((end, index) => memory.subarray(ends[index - 1] ?? 0, end)));
  }

  #fill({ start, end }: Span): void {
    const [from, to] = [start * this.#elementBytes, end * this.#elementBytes];
    this.#input.set(this.#filled.subarray(from, to), from);
  }

  /** The next part of the input is there. */
  readyNext(): void {
    const part = this.missing.shift();
    if (part === undefined) return;
    this.#fill(part);
    this.transfer.ready(part.start, part.end);
  }

  /** What was said to be finished is all of the output, each element once, and has not changed since. */
  checkFinished(rank: Rank): void {
    let at = 0;
    for (const { start, bytes } of [...this.finished].sort((left, right) => left.start - right.start)) {
      if (start * this.#elementBytes !== at) throw new Error(`rank ${rank} finished byte ${at} twice, or never`);
      if (Buffer.compare(bytes, this.output.subarray(at, at + bytes.length)) !== 0)
        throw new Error(`rank ${rank} changed what it had finished at byte ${at}`);
      at += bytes.length;
    }
    if (at !== this.output.length) throw new Error(`rank ${rank} finished ${at} of ${this.output.length} bytes`);
  }
}

export interface Result {
  readonly outputs: readonly Uint8Array[];
  readonly held: readonly boolean[];
  readonly shares: readonly (readonly number[])[];
  /** Of each rank's encodings: relative RMS of what they dropped. */
  readonly errors: readonly number[];
  readonly bytesSent: readonly number[];
}

/** @throws when a frame is refused, or ranks wait for what never comes */
export function simulate(scenario: Scenario, inputs: readonly Uint8Array[]): Result {
  const { worldSize } = scenario.request;
  const random = randomFrom(scenario.seed);
  const below = (bound: number) => Math.floor(random() * bound);
  const workspaces = workspacesFor(scenario);
  const borrowed = workspaces.slice(0, worldSize).map((workspace) => {
    const slots: number[] = [];
    for (let index = 0; index < scenario.slotsTaken; index++) slots.push(workspace.acquire());
    return slots;
  });
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const wires = ranks.map(() => ranks.map(() => new Wire(1 + below(5))));
  const participants = ranks.map((rank) => new Participant(scenario, rank, inputs[rank]!, (to) => wires[rank]![to]!));
  const readers = ranks.map((from) =>
    ranks.map((to) => {
      const { transfer } = participants[to]!;
      const cursor = new FrameCursor();
      const sink = {
        onFrame: (header: Parameters<Transfer['beginFrame']>[2]) => transfer.beginFrame(cursor, from, header),
        onPayload: (bytes: Uint8Array, start: number, end: number) => {
          transfer.payload(cursor, bytes, start, end);
          return null;
        },
        onFrameEnd: () => {
          transfer.endFrame(cursor);
          return null;
        },
      };
      const abandon = () => transfer.abandonFrame(cursor);
      return { reader: new FrameReader(sink, new Uint8Array(64)), abandon };
    }),
  );

  /** Everything that could happen now. */
  const possible = (): (() => void)[] => {
    const actions: (() => void)[] = [];
    for (const participant of participants) {
      if (participant.started) continue;
      actions.push(() => {
        participant.started = true;
        participant.transfer.start();
      });
    }
    for (const participant of participants) {
      if (participant.started && participant.missing.length > 0) actions.push(() => participant.readyNext());
    }
    for (const from of ranks) {
      for (const to of ranks) {
        const wire = wires[from]![to]!;
        if (wire.canFlush) {
          actions.push(() => {
            wire.flush();
            participants[from]!.transfer.pump();
          });
        }
        // What comes for a call that was not made here yet is kept in front of the executor.
        if (wire.canDeliver && participants[to]!.started) {
          actions.push(() => {
            const error = readers[from]![to]!.reader.push(wire.take(1 + below(random() < 0.5 ? 20 : 400)));
            if (error !== null) throw new Error(`rank ${to} refuses what rank ${from} sent: ${error}`);
          });
        }
      }
    }
    return actions;
  };

  let events = 0;
  for (let actions = possible(); actions.length > 0; actions = possible()) {
    actions[below(actions.length)]!();
    events += 1;
    if (events === scenario.cancelAfter) for (const { transfer } of participants) transfer.cancel();
  }
  for (const row of readers) for (const { abandon } of row) abandon();
  for (const [rank, slots] of borrowed.entries()) {
    for (const slot of slots) workspaces[rank]!.release(slot);
  }
  for (const [rank, { held, transfer }] of participants.entries()) {
    if (scenario.cancelAfter === null && !held)
      throw new Error(`rank ${rank} waits for ${transfer.waitsFor.join()} for ever`);
    if (!transfer.drained) throw new Error(`rank ${rank} has bytes in flight that nobody holds`);
  }
  if (scenario.streams === true && scenario.cancelAfter === null)
    for (const [rank, participant] of participants.entries()) participant.checkFinished(rank);
  return {
    outputs: participants.map(({ output }) => output),
    held: participants.map(({ held }) => held),
    shares: participants.map(({ shares }) => shares),
    errors: participants.map(({ transfer }) => transfer.error),
    bytesSent: participants.map(({ transfer }) => transfer.bytesSent),
  };
}
