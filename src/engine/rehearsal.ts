/**
 * A rehearsal: calls among ranks that are all in here, of which nothing leaves.
 *
 * A compiler looks at code when it is called for the first time, so a newcomer's part of its first collective takes several times as long as of
 * later ones, and all members wait for it. An engine that rehearses while its owner waits to be let in has that behind it. What is called in here is
 * what is called later: real collectives, that write frames, read one another's, and wait for a coordinator's word.
 */
import type { CallSpec, PeerId } from '../collectives/call.ts';
import { Collectives } from '../collectives/collectives.ts';
import { Inbound, NO_SIGNS } from '../collectives/inbound.ts';
import type { LinkPort } from '../collectives/ports.ts';
import type { Clock } from '../transport/clock.ts';
import { FrameReader, HEADER_BYTES } from '../wire/frame.ts';
import type { PeerMessage } from '../wire/peer-messages.ts';
import type { EngineMemory } from './memory.ts';

/** As many as it takes for parts of different ranks, and for a rank that has no partner. */
const RANKS = 3;

/** How often each call is made: the first time code is parsed, and then it is compiled further the more it runs. */
const ROUNDS = 5;

/** Bytes of the tensors: of one that is sent along with its announcement, and of one that waits for the others'. */
const SIZES: readonly number[] = [64, 96 * 1024];

const CALL: Omit<CallSpec, 'kind' | 'op' | 'count' | 'input' | 'output'> = {
  tag: '',
  dtype: 'f32',
  trim: null,
  clipRadius: null,
  codec: 'f32',
  rounding: 'nearest',
  errorFeedback: false,
  measureError: false,
  algorithm: 'auto',
  root: null,
  laidOutFor: null,
  consistency: 'commit',
  recovery: 'restart',
  stragglers: 'wait',
  minWorldSize: 1,
  timeoutMs: 60_000,
  guard: null,
  stream: null,
  atomic: true,
};

interface Actor {
  readonly collectives: Collectives;
  /** What the others write to it. */
  readonly read: (from: PeerId, bytes: Uint8Array) => void;
}

/** Ranks, the ways between them, and who says that all hold a result. */
class Stage {
  readonly #memory: EngineMemory;
  /** By their names. */
  readonly #actors: ReadonlyMap<PeerId, Actor>;
  /** What is on the way. */
  readonly #frames: (() => void)[] = [];
  /** Ranks that hold the result of the call that is under way. */
  #holders = 0;

  constructor(memory: EngineMemory) {
    this.#memory = memory;
    const names = Array.from({ length: RANKS }, (_, rank) => `rank ${rank}`);
    this.#actors = new Map(names.map((name) => [name, this.#actor(name)]));
    const members = names.map((peerId, place) => ({ peerId, site: '', place }));
    for (const { collectives } of this.#actors.values())
      collectives.onView({ epoch: 1, generation: 1, boundary: 1, members, cuts: [] });
  }

  #actor(self: PeerId): Actor {
    const { workspace, readBuffers } = this.#memory;
    const collectives = new Collectives({
      self,
      workspace,
      now: () => 0,
      link: (peerId) => this.#way(self, peerId),
      knows: () => true,
      control: (message) => this.#onControl(message),
      takeScratch: (byteLength) => new Uint8Array(byteLength),
      giveScratch: () => {},
    });
    const readers = new Map<PeerId, FrameReader>();
    const read = (from: PeerId, bytes: Uint8Array) => {
      const reader =
        readers.get(from) ??
        new FrameReader(new Inbound(from, collectives.delivery, NO_SIGNS), new Uint8Array(HEADER_BYTES));
      readers.set(from, reader);
      const buffer = readBuffers.take();
      for (let at = 0; at < bytes.length; at += buffer.length) {
        const piece = bytes.subarray(at, at + buffer.length);
        buffer.set(piece);
        reader.push(buffer.subarray(0, piece.length));
      }
      readBuffers.give(buffer);
    };
    return { collectives, read };
  }

  #way(from: PeerId, to: PeerId): LinkPort {
    return {
      up: true,
      writable: true,
      queuedBytes: 0,
      cork: () => {},
      uncork: () => {},
      send: (head, body, onFlushed) => {
        const bytes = new Uint8Array(head.length + (body?.length ?? 0));
        bytes.set(head);
        if (body !== null) bytes.set(body, head.length);
        this.#frames.push(() => {
          onFlushed?.();
          this.#actors.get(to)?.read(from, bytes);
        });
      },
    };
  }

  #onControl(message: PeerMessage): void {
    if (message.type !== 'done') return;
    this.#holders += 1;
    if (this.#holders < RANKS) return;
    this.#holders = 0;
    const { id, epoch } = message;
    for (const { collectives } of this.#actors.values())
      this.#frames.push(() => collectives.onCommit({ type: 'commit', id, epoch }));
  }

  /** All ranks make a call. @returns how many have its result */
  play(spec: CallSpec): number {
    let results = 0;
    const onSettled = ({ ok }: { readonly ok: boolean }) => {
      if (ok) results += 1;
    };
    const listener = { onProgress: () => {}, onPart: () => {}, onSettled };
    for (const { collectives } of this.#actors.values()) collectives.call(spec, listener);
    for (let next = this.#frames.shift(); next !== undefined; next = this.#frames.shift()) {
      next();
      for (const { collectives } of this.#actors.values()) collectives.pump();
    }
    return results;
  }
}

/**
 * Takes a tenth of a second of processor time, most of it the compiler's, with turns for others between.
 *
 * @returns how many calls of a rank were made, and how many had their result: a test would see it if these were not the same
 */
export async function rehearse(
  memory: EngineMemory,
  clock: Clock,
): Promise<{ readonly calls: number; readonly results: number }> {
  const stage = new Stage(memory);
  const program = SIZES.flatMap((bytes): CallSpec[] => {
    const [part, all] = [new Uint8Array(bytes), new Uint8Array(RANKS * bytes)];
    const count = bytes / 4;
    return [
      { ...CALL, kind: 'allGather', op: null, count, input: [part], output: [all] },
      { ...CALL, kind: 'allReduce', op: 'sum', count, input: [part], output: [part] },
    ];
  });
  let results = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (const spec of program) results += stage.play(spec);
    await new Promise<void>((resolve) => void clock.schedule(0, resolve));
  }
  return { calls: ROUNDS * program.length * RANKS, results };
}
