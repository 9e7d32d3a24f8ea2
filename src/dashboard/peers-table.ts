/** A row for each peer. */

import { bytes, count, milliseconds, rate } from '../eyes/format.ts';
import type { LinkState, MemberState, RunState } from '../eyes/run-state.ts';
import { find, Keyed, setAttributes, setText } from './dom.ts';
import { type Sites, siteName } from './sites.ts';

interface Column {
  readonly title: string;
  /** What is longer than the title says. */
  readonly hint: string;
  readonly isNumber: boolean;
  readonly text: (member: MemberState, link: LinkState | null) => string;
  /** By what rows are sorted. */
  readonly key: (member: MemberState, link: LinkState | null) => number | string;
}

const COLUMNS: readonly Column[] = [
  {
    title: 'Rank',
    hint: 'Its rank in the present view',
    isNumber: true,
    text: ({ rank }) => String(rank),
    key: ({ rank }) => rank,
  },
  { title: 'Peer', hint: 'Its name', isNumber: false, text: ({ peerId }) => peerId, key: ({ peerId }) => peerId },
  {
    title: 'Site',
    hint: 'Where it says that it is',
    isNumber: false,
    text: ({ site }) => siteName(site),
    key: ({ site }) => site,
  },
  {
    title: 'Path',
    hint: 'By which ways it reaches the others',
    isNumber: false,
    text: ({ ways }) => ways.join(', ') || '–',
    key: ({ ways }) => ways.join(),
  },
  {
    title: 'Round trip',
    hint: 'To the coordinator and back',
    isNumber: true,
    text: ({ roundTripMs }) => milliseconds(roundTripMs),
    key: ({ roundTripMs }) => roundTripMs ?? -1,
  },
  {
    title: 'To next',
    hint: 'Half of a round trip to the next on the ring, where that was measured',
    isNumber: true,
    text: (_, link) => milliseconds(link?.delayMs ?? null),
    key: (_, link) => link?.delayMs ?? -1,
  },
  {
    title: 'Sends',
    hint: 'To other peers, now',
    isNumber: true,
    text: ({ sentPerSecond }) => rate(sentPerSecond),
    key: ({ sentPerSecond }) => sentPerSecond,
  },
  {
    title: 'Receives',
    hint: 'From other peers, now',
    isNumber: true,
    text: ({ receivedPerSecond }) => rate(receivedPerSecond),
    key: ({ receivedPerSecond }) => receivedPerSecond,
  },
  {
    title: 'Lag',
    hint: 'How long others waited for it in the last second',
    isNumber: true,
    text: ({ lagMs }) => (lagMs === 0 ? '–' : milliseconds(lagMs)),
    key: ({ lagMs }) => lagMs,
  },
  {
    title: 'Steps',
    hint: 'Boundaries that it has passed',
    isNumber: true,
    text: ({ steps }) => count(steps),
    key: ({ steps }) => steps,
  },
  {
    title: 'Calls',
    hint: 'That ended well',
    isNumber: true,
    text: ({ calls }) => count(calls),
    key: ({ calls }) => calls,
  },
  {
    title: 'Failed',
    hint: 'Calls that failed',
    isNumber: true,
    text: ({ failed }) => count(failed),
    key: ({ failed }) => failed,
  },
  {
    title: 'Sent',
    hint: 'By calls that ended well',
    isNumber: true,
    text: ({ sentBytes }) => bytes(sentBytes),
    key: ({ sentBytes }) => sentBytes,
  },
  {
    title: 'Received',
    hint: 'By calls that ended well',
    isNumber: true,
    text: ({ receivedBytes }) => bytes(receivedBytes),
    key: ({ receivedBytes }) => receivedBytes,
  },
];

export interface TableEvents {
  onDismiss(peerId: string): void;
  /** A row is pointed at, or has the focus; null: none. */
  onChosen(peerId: string | null): void;
}

export class PeersTable {
  readonly #body: HTMLTableSectionElement = find('peers-body');
  readonly #sites: Sites;
  readonly #rows: Keyed<HTMLTableRowElement>;
  readonly #heads: HTMLTableCellElement[] = [];
  #column = 0;
  #isDescending = false;
  #last: RunState | null = null;

  constructor(sites: Sites, events: TableEvents) {
    this.#sites = sites;
    this.#rows = new Keyed((key) => makeRow(key, events));
    for (const [at, { title, hint, isNumber }] of COLUMNS.entries()) {
      const head = document.createElement('th');
      head.scope = 'col';
      if (isNumber) head.className = 'n';
      const button = document.createElement('button');
      button.type = 'button';
      button.title = hint;
      button.textContent = title;
      button.addEventListener('click', () => this.#sortBy(at));
      head.append(button);
      this.#heads.push(head);
    }
    const last = document.createElement('th');
    last.scope = 'col';
    const hidden = document.createElement('span');
    hidden.className = 'unseen';
    hidden.textContent = 'Dismiss';
    last.append(hidden);
    find('peers-head').replaceChildren(...this.#heads, last);
    this.#showOrder();
  }

  show(state: RunState | null): void {
    this.#last = state;
    const members = state?.members ?? [];
    const joining = state?.joining ?? [];
    const next = new Map<string, string>();
    for (const [place, from] of (state?.ring ?? []).entries())
      next.set(from, state!.ring[(place + 1) % state!.ring.length]!); // within
    const links = new Map((state?.links ?? []).map((link) => [`${link.from} ${link.to}`, link]));
    const linkOf = ({ peerId }: MemberState) => links.get(`${peerId} ${next.get(peerId)}`) ?? null;
    const { key } = COLUMNS[this.#column]!; // one of them
    const sorted = [...members].sort((left, right) => {
      const [one, other] = [key(left, linkOf(left)), key(right, linkOf(right))];
      const order = one < other ? -1 : one > other ? 1 : left.rank - right.rank;
      return this.#isDescending ? -order : order;
    });
    for (const member of sorted) this.#showMember(member, linkOf(member));
    for (const peer of joining) this.#showJoining(peer);
    const ids = [...sorted, ...joining].map(({ peerId }) => peerId);
    this.#rows.show(this.#body, ids);
    setText(find('peers-now'), `${members.length} members${joining.length > 0 ? `, ${joining.length} joining` : ''}`);
  }

  #showMember(member: MemberState, link: LinkState | null): void {
    const row = this.#rows.get(member.peerId);
    setAttributes(row, {
      class: `${this.#sites.classOf(member.site)}${member.slow ? ' slow' : ''}${member.path === null ? ' away' : ''}`,
    });
    for (const [at, { text }] of COLUMNS.entries())
      setText(row.cells[at]!.firstElementChild ?? row.cells[at]!, text(member, link));
    if (member.slow) setText(row.cells[8]!, `${milliseconds(member.lagMs)} · slow`);
  }

  #showJoining({ peerId, site, state }: RunState['joining'][number]): void {
    const row = this.#rows.get(peerId);
    setAttributes(row, { class: `${this.#sites.classOf(site)} joining` });
    const texts = ['–', peerId, siteName(site), state === 'ready' ? 'comes in next' : 'connects'];
    for (const at of COLUMNS.keys()) setText(row.cells[at]!.firstElementChild ?? row.cells[at]!, texts[at] ?? '');
  }

  #sortBy(column: number): void {
    this.#isDescending = column === this.#column ? !this.#isDescending : COLUMNS[column]!.isNumber && column > 0;
    this.#column = column;
    this.#showOrder();
    this.show(this.#last);
  }

  #showOrder(): void {
    for (const [at, head] of this.#heads.entries())
      setAttributes(head, {
        'aria-sort': at !== this.#column ? null : this.#isDescending ? 'descending' : 'ascending',
      });
  }
}

function makeRow(peerId: string, events: TableEvents): HTMLTableRowElement {
  const row = document.createElement('tr');
  row.dataset['peer'] = peerId;
  for (const [at, { isNumber }] of COLUMNS.entries()) {
    const cell = row.insertCell();
    if (isNumber) cell.className = 'n';
    if (at === 1) cell.append(document.createElement('code'));
    if (at === 2) cell.append(document.createElement('span'));
  }
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'small';
  button.textContent = 'Dismiss';
  button.setAttribute('aria-label', `Dismiss ${peerId}`);
  button.addEventListener('click', () => events.onDismiss(peerId));
  row.insertCell().append(button);
  row.addEventListener('pointerenter', () => events.onChosen(peerId));
  row.addEventListener('pointerleave', () => events.onChosen(null));
  row.addEventListener('focusin', () => events.onChosen(peerId));
  row.addEventListener('focusout', () => events.onChosen(null));
  return row;
}
