/**
 * Where frames go that arrive: to the attempt that they belong to, to the store of those that came too early, on to the next peer of
 * a path round a cut, or nowhere. A frame names an attempt by generation, tag, number and epoch; what no attempt here answers to
 * is stale, and dropped. Announcements are compared with this rank's own call before anything bulky is sent to their peer.
 */
import {
  emptyHeader,
  FRAME_CREDIT,
  FRAME_DATA,
  FRAME_OPEN,
  type FrameHeader,
  HEADER_BYTES,
  writeHeader,
} from '../wire/frame.ts';
import { MAX_RELAY_QUEUE_BYTES } from '../wire/limits.ts';
import { parseDescription, sameBytes, sameDescription } from './announcement.ts';
import { type Arrival, Arrivals } from './arrivals.ts';
import { describe, type PeerId } from './call.ts';
import { findOpen } from './context.ts';
import type { Contexts } from './contexts.ts';
import { FrameCursor } from './executor.ts';
import { type Operation, rankIn } from './operation.ts';
import type { Ports } from './ports.ts';
import { Envelope, type Path, readInner, readPath, relayHeader } from './relay.ts';
import type { Settlement } from './settlement.ts';
import type { Surroundings } from './surroundings.ts';

export class Delivery {
  readonly #around: Pick<Surroundings, 'self' | 'workspace' | 'link' | 'knows'>;
  readonly #contexts: Contexts;
  readonly #ports: Ports;
  readonly #settlement: Settlement;
  readonly #arrivals: Arrivals = new Arrivals();
  readonly #replay: FrameCursor = new FrameCursor();

  constructor(
    around: Pick<Surroundings, 'self' | 'workspace' | 'link' | 'knows'>,
    contexts: Contexts,
    ports: Ports,
    settlement: Settlement,
  ) {
    this.#around = around;
    this.#contexts = contexts;
    this.#ports = ports;
    this.#settlement = settlement;
  }

  // --- to the attempt ----------------------------------------------------------------------------------------------

  /** What to do with a data frame: the transfer it belongs to, `keep` it for later, or `drop` it. */
  route(from: PeerId, header: FrameHeader): Operation | 'keep' | 'drop' {
    const context = this.#contexts.get(header.generation);
    if (context === undefined) return header.generation > (this.#contexts.current?.generation ?? 0) ? 'keep' : 'drop';
    const state = context.find(header.tag);
    const operation = state === undefined ? undefined : findOpen(state, header.sequence);
    if (operation === undefined) return header.sequence >= (state?.nextSequence ?? 0) ? 'keep' : 'drop';
    // Without an attempt (it waits for a decision) no frame is for it yet, not even one that claims epoch 0.
    const epoch = operation.attempt?.epoch ?? 0;
    if (header.epoch > epoch) return 'keep';
    const live = operation.attempt !== null && header.epoch === epoch && !operation.mismatched.has(from);
    return live ? operation : 'drop';
  }

  /**
   * A whole frame, announced or kept: hands it to where it belongs now.
   *
   * @returns what is wrong with it, or null
   */
  deliver(arrival: Arrival): string | null {
    const { from, header } = arrival;
    const target = this.route(from, header);
    if (target === 'drop') return null;
    if (target === 'keep') return this.#arrivals.keep(arrival);
    // Whoever relays speaks for another: believed only of members, and only where this rank goes round a cut as well.
    if (arrival.path !== null && !this.#isRoute(target, arrival.path)) return null;
    if (header.type === FRAME_OPEN) return this.#onOpen(target, arrival);
    const attempt = target.attempt!; // route compared its epoch
    const error = attempt.transfer.beginFrame(this.#replay, rankIn(attempt, from), header);
    if (error !== null) return error;
    attempt.transfer.payload(this.#replay, arrival.payload, 0, arrival.payload.length);
    attempt.transfer.endFrame(this.#replay);
    return null;
  }

  /** A peer announces the same number: it must have made the same call. */
  #onOpen(operation: Operation, arrival: Arrival): string | null {
    const { from, payload } = arrival;
    const attempt = operation.attempt!; // route compared its epoch
    // Whoever is in no view with us must not be able to fail what its members do.
    if (rankIn(attempt, from) < 0) return 'it announced a call in which it has no part';
    if (!sameBytes(payload, attempt.announcement.subarray(HEADER_BYTES))) {
      const parsed = parseDescription(payload);
      if (!parsed.ok) return parsed.error;
      const own = operation.description(attempt.algorithm, this.#around.workspace.segmentBytes);
      // Browsers write the same with another library, in other bytes.
      if (!sameDescription(parsed.value, own)) {
        operation.mismatched.add(from);
        this.#settlement.mismatch(operation, describe(own), describe(parsed.value), from);
        return null;
      }
    }
    const port = attempt.ports.get(from);
    if (port === undefined) return null;
    this.#ports.uncharge(from, port);
    port.allowed = true;
    operation.flight?.called(rankIn(attempt, from));
    attempt.transfer.pump();
    return null;
  }

  // --- what came too early -----------------------------------------------------------------------------------------

  /** An attempt is under way: hands it what has come for it. */
  takeKept(operation: Operation): void {
    // Also where there was nothing to do: another peer may have announced something else.
    const isOpen = operation.state === 'running' || operation.state === 'held';
    if (!isOpen || operation.attempt === null) return;
    const { generation, tag, sequence } = operation.attempt.frame;
    for (const arrival of this.#arrivals.take(generation, tag, sequence)) {
      if (operation.state === 'ended') return;
      this.deliver(arrival);
    }
  }

  /** No call of an earlier generation will ask for what it was sent. */
  forgetBefore(generation: number): void {
    this.#arrivals.dropBefore(generation);
  }

  /** A peer is gone: what it sent ahead of its calls will not be asked for. */
  forget(peerId: PeerId): void {
    this.#arrivals.dropFrom(peerId);
  }

  // --- round cuts --------------------------------------------------------------------------------------------------

  /**
   * A relayed frame came in whole: hands it on, or takes it if this is where it goes. What can't be handed on is dropped:
   * whoever lost the way says so to the coordinator, and the attempt is begun anew round it.
   *
   * @returns what is wrong with it, or null
   */
  onRelayed({ from, header, payload }: Arrival): string | null {
    const path = readPath(header, payload);
    if (typeof path === 'string') return path;
    const at = path.indexOf(this.#around.self);
    if (at < 1 || path[at - 1] !== from) return 'it sent a relayed frame by a path that does not lead here';
    const next = path[at + 1];
    if (next === undefined) return this.#takeRelayed(path, header, payload);
    const link = this.#around.link(next);
    if (!link.up) return null;
    if (link.queuedBytes > MAX_RELAY_QUEUE_BYTES) return 'it has more relayed than the protocol allows';
    // In order, as nobody looks inside: the data of a call must not overtake its announcement.
    link.send(relayHeader(header.chunk, payload.length), payload, null, true);
    return null;
  }

  #takeRelayed(path: Path, header: FrameHeader, payload: Uint8Array): string | null {
    const inner = readInner(header, payload);
    if (typeof inner === 'string') return inner;
    const source = path[0]!; // a path has at least three members
    if (inner.header.type === FRAME_CREDIT) {
      const target = this.route(source, inner.header);
      if (typeof target === 'string') return null;
      target.attempt?.ports.get(source)?.credit?.(inner.header.segment);
      target.attempt?.transfer.pump();
      return null;
    }
    if (!path.every((peerId) => peerId === this.#around.self || this.#around.knows(peerId))) return null;
    const error = this.deliver({ from: source, path, header: inner.header, payload: inner.payload });
    if (error === null && inner.header.type === FRAME_DATA) this.#giveCredit(path, inner.header);
    return error;
  }

  #isRoute({ context }: Operation, path: Path): boolean {
    return context?.cuts.has(path[0]!, this.#around.self) === true && path.every((peerId) => context.has(peerId));
  }

  #giveCredit(path: Path, { epoch, generation, tag, sequence, length }: FrameHeader): void {
    const back = [...path].reverse();
    const segment = HEADER_BYTES + length;
    const head = new Uint8Array(HEADER_BYTES);
    const credit = { ...emptyHeader(), type: FRAME_CREDIT, epoch, generation, tag, sequence, segment };
    writeHeader(new DataView(head.buffer), 0, credit);
    const link = this.#around.link(back[1]!); // it came through that one
    if (link.up) link.send(new Envelope(back).wrap(head, 0), null, null, false);
  }
}
