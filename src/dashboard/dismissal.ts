/** Letting a peer go, once that is confirmed. */
import { find, setText } from './dom.ts';
import { authorization, refusalIn } from './live.ts';

export class Dismissal {
  readonly #dialog: HTMLDialogElement = find('dismiss');
  readonly #confirm: HTMLButtonElement = find('dismiss-confirm');
  #asked: { readonly run: string; readonly peerId: string } | null = null;

  constructor() {
    find('dismiss-cancel').addEventListener('click', () => this.#dialog.close());
    this.#confirm.addEventListener('click', () => void this.#dismiss());
  }

  ask(run: string, peerId: string): void {
    this.#asked = { run, peerId };
    setText(find('dismiss-peer'), peerId);
    setText(find('dismiss-error'), '');
    this.#dialog.showModal();
    // What does no harm is what Enter does.
    find('dismiss-cancel').focus();
  }

  async #dismiss(): Promise<void> {
    if (this.#asked === null) return;
    this.#confirm.disabled = true;
    try {
      const response = await fetch('api/dismiss', {
        method: 'POST',
        headers: { ...authorization(), 'Content-Type': 'application/json' },
        body: JSON.stringify(this.#asked),
      });
      if (response.ok) this.#dialog.close();
      else setText(find('dismiss-error'), await refusalIn(response));
    } catch {
      setText(find('dismiss-error'), 'The coordinator does not answer.');
    } finally {
      this.#confirm.disabled = false;
    }
  }
}
