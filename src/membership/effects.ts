/** What a coordinator's machine wants done, in the order in which it came to want it: its parts add to it, and each step takes it. */
import type { CoordinatorMessage } from '../wire/coordinator-messages.ts';
import type { CoordinatorEffect, PeerId } from './events.ts';

export class Effects {
  #wanted: CoordinatorEffect[] = [];

  send(peerId: PeerId, message: CoordinatorMessage): void {
    this.#wanted.push({ type: 'send', peerId, message });
  }

  assign(connection: number, peerId: PeerId): void {
    this.#wanted.push({ type: 'assign', connection, peerId });
  }

  close(peerId: PeerId, reason: string): void {
    this.#wanted.push({ type: 'close', peerId, reason });
  }

  note(text: string): void {
    this.#wanted.push({ type: 'note', text });
  }

  take(): CoordinatorEffect[] {
    const wanted = this.#wanted;
    this.#wanted = [];
    return wanted;
  }
}
