/**
 * Messages about notes on their way to the training thread, which may be busy for long: so many wait there to be read, and what comes
 * beyond that is left out. When all were read it is told so, once (null), and asks the coordinator for what it has missed.
 */

import type { NotedMessage } from '../wire/coordinator-messages.ts';
import { MAX_UNREAD_NOTES } from '../wire/limits.ts';

export class NotesInbox {
  readonly #handOn: (message: NotedMessage | null) => void;
  #unread = 0;
  #hasMissed = false;

  constructor(handOn: (message: NotedMessage | null) => void) {
    this.#handOn = handOn;
  }

  onMessage(message: NotedMessage): void {
    if (this.#unread < MAX_UNREAD_NOTES) this.#push(message);
    else this.#hasMissed = true;
  }

  /** The training thread has read one. */
  onRead(): void {
    this.#unread -= 1;
    if (!this.#hasMissed || this.#unread > 0) return;
    this.#hasMissed = false;
    this.#push(null);
  }

  #push(message: NotedMessage | null): void {
    this.#unread += 1;
    this.#handOn(message);
  }
}
