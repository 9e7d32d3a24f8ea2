/** Shared state in one engine: its code is loaded when it is first needed, as most of it is for who shares state only. */
import type { Prefetched, StateAnswers, StateAsk, StateStatus } from '../state/asks.ts';
import type { StateService } from '../state/service.ts';
import type { Clock } from '../transport/clock.ts';
import { bareFrame } from '../transport/lane.ts';
import type { Link } from '../transport/link.ts';
import { FRAME_ANSWER, type FrameHeader } from '../wire/frame.ts';
import { LINK_HIGH_WATER_BYTES } from '../wire/limits.ts';
import type { ScratchPool } from './memory.ts';

interface Around {
  readonly clock: Clock;
  readonly scratch: ScratchPool;
  link(peerId: string): Link | undefined;
  sharesHost(peerId: string): boolean;
  /** No step is under way here that could be slowed down. */
  isResting(): boolean;
}

export class States {
  readonly #around: Around;
  #loading: Promise<StateService> | null = null;
  #service: StateService | null = null;
  #isClosed = false;

  constructor(around: Around) {
    this.#around = around;
  }

  async ask(ask: StateAsk): Promise<StateAnswers[StateAsk['type']]> {
    return (await this.#load()).ask(ask);
  }

  async prefetch(tag: string, peers: readonly string[], isWanted: () => boolean): Promise<Prefetched> {
    return (await this.#load()).prefetch(tag, peers, () => isWanted() && !this.#isClosed);
  }

  /** The members have taken this peer in, after `prefetch`. */
  follow(tag: string): void {
    this.#service?.follow(tag);
  }

  /** Who holds nothing, says so. */
  onAsk(from: string, header: FrameHeader): string | null {
    if (this.#service !== null) return this.#service.onAsk(from, header);
    const link = this.#around.link(from);
    if (link === undefined || link.queuedBytes > LINK_HIGH_WATER_BYTES) return null; // it does not read what it asks for
    const { sequence, tag } = header;
    this.#send(from, bareFrame({ type: FRAME_ANSWER, sequence, tag }), null, null);
    return null;
  }

  openAnswer(from: string, header: FrameHeader): Uint8Array | null | string {
    return this.#service?.openAnswer(from, header) ?? null;
  }

  endAnswer(from: string, header: FrameHeader, answer: Uint8Array | null): void {
    this.#service?.endAnswer(from, header, answer);
  }

  abandonAnswer(answer: Uint8Array): void {
    this.#service?.abandonAnswer(answer);
  }

  onLinkLost(peerId: string): void {
    this.#service?.onLinkLost(peerId);
  }

  status(): readonly StateStatus[] {
    return this.#service?.status() ?? [];
  }

  close(): void {
    this.#isClosed = true;
    this.#service?.close();
  }

  #send(peerId: string, head: Uint8Array, body: Uint8Array | null, onFlushed: (() => void) | null): void {
    const link = this.#around.link(peerId);
    if (link !== undefined) link.send(head, body, onFlushed, false);
    else if (onFlushed !== null) queueMicrotask(onFlushed);
  }

  async #load(): Promise<StateService> {
    this.#loading ??= this.#open();
    return this.#loading;
  }

  async #open(): Promise<StateService> {
    const { clock, scratch, link, sharesHost, isResting } = this.#around;
    const { StateService } = await import('../state/service.ts');
    this.#service = await StateService.open({
      now: () => clock.now(),
      schedule: (delayMs, task) => clock.schedule(delayMs, task),
      isUp: (peerId) => link(peerId)?.up === true,
      sharesHost,
      send: (peerId, head, body, onFlushed) => this.#send(peerId, head, body, onFlushed),
      isResting,
      takeBuffer: (byteLength) => scratch.take(byteLength),
      giveBuffer: (buffer) => scratch.give(buffer),
    });
    return this.#service;
  }
}
