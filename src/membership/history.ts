/**
 * The views that a peer has been in. A restarted coordinator learns from it what it decided: also for members that have not
 * passed those boundaries yet.
 */

import { MAX_REPORTED_VIEWS } from '../wire/limits.ts';
import type { WireView } from '../wire/parts.ts';

export class ViewHistory {
  #views: WireView[] = [];

  add(view: WireView): void {
    this.#views.push(view);
    if (this.#views.length > MAX_REPORTED_VIEWS) this.#views.shift();
  }

  /** @param concerns whether a view takes part in what has happened; its epoch is raised then */
  onLoss(epoch: number, lost: readonly string[], concerns: (view: WireView) => boolean): void {
    this.#views = this.#views.map((view) => {
      if (!concerns(view)) return view;
      return { ...view, epoch, members: view.members.filter((member) => !lost.includes(member.peerId)) };
    });
  }

  /** Oldest first. */
  get views(): readonly WireView[] {
    return this.#views;
  }
}

/** Which views a loss concerns: those of the lost, those that hold both ends of a broken link, or all. */
export function concernedBy(
  lost: readonly string[],
  broken: readonly [string, string] | null,
  resumed: boolean,
): (view: { readonly members: readonly { readonly peerId: string }[] }) => boolean {
  return (view) => {
    const has = (peerId: string) => view.members.some((member) => member.peerId === peerId);
    return resumed || lost.some(has) || broken?.every(has) === true;
  };
}
