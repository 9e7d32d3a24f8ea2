/** Epochs and faults on a line, and in words. */

import { clock, shortName } from '../eyes/format.ts';
import type { Happening, HappeningKind, Second } from '../eyes/timeline.ts';
import { setAttributes, setText, svg } from './dom.ts';

/** How each kind is called, and in which row it stands. */
const KINDS: Readonly<Record<HappeningKind, { readonly name: string; readonly row: number; readonly mark: string }>> = {
  join: { name: 'join', row: 0, mark: 'M0,-5L5,4H-5Z' },
  view: { name: 'view', row: 0, mark: 'M0,-4A4,4 0 1 1 -0.01,-4Z' },
  recovering: { name: 'back', row: 0, mark: 'M0,-4A4,4 0 1 1 -0.01,-4Z' },
  healed: { name: 'healed', row: 0, mark: 'M0,-5L5,0L0,5L-5,0Z' },
  loss: { name: 'loss', row: 1, mark: 'M-5,-5L5,5M-5,5L5,-5' },
  epoch: { name: 'epoch', row: 1, mark: 'M0,-7V7' },
  cut: { name: 'cut', row: 1, mark: 'M-5,0H5M0,-5V5' },
  abort: { name: 'abort', row: 2, mark: 'M-4,-4H4V4H-4Z' },
  slow: { name: 'slow', row: 2, mark: 'M0,-5A5,5 0 1 1 -0.01,-5Z' },
  excluded: { name: 'excluded', row: 2, mark: 'M-5,-4H5L0,5Z' },
};

const ROWS = ['came', 'lost', 'held up'];
const WIDTH = 1_200;
const LEFT = 66;
const RIGHT = 14;
const TOP = 52;
const ROW = 24;
const HEIGHT: number = TOP + 3 * ROW + 22;

/** Lines of the list, and marks on the line. */
const MOST_LINES = 60;
const MOST_MARKS = 200;

export class TimelineView {
  readonly #canvas: SVGSVGElement;
  readonly #log: HTMLOListElement;
  readonly #area: SVGPathElement = svg('path', { class: 'area' });
  readonly #edge: SVGPathElement = svg('path', { class: 'edge' });
  readonly #marks: SVGGElement = svg('g');
  readonly #axis: SVGGElement = svg('g', { class: 'axis' });
  /** The last that the list shows. */
  #listed = -1;
  /** Minutes. */
  span = 2;

  constructor(canvas: SVGSVGElement, log: HTMLOListElement) {
    this.#canvas = canvas;
    this.#log = log;
    setAttributes(canvas, { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
    const rows = ROWS.map((name, row) => {
      const text = svg('text', { class: 'row', x: LEFT - 12, y: TOP + ROW * (row + 0.5) + 4 });
      text.textContent = name;
      return text;
    });
    const lines = ROWS.map((_, row) =>
      svg('path', { class: 'rule', d: `M${LEFT},${TOP + ROW * (row + 0.5)}H${WIDTH - RIGHT}` }),
    );
    const members = svg('text', { class: 'row', x: LEFT - 12, y: 30 });
    members.textContent = 'members';
    canvas.replaceChildren(...lines, this.#area, this.#edge, this.#axis, members, ...rows, this.#marks);
  }

  show(now: number, seconds: readonly Second[], happenings: readonly Happening[]): void {
    const from = now - 60_000 * this.span;
    const x = (at: number) => LEFT + ((WIDTH - LEFT - RIGHT) * (at - from)) / (now - from);
    const shown = seconds.filter(({ at }) => at >= from);
    const most = Math.max(1, ...shown.map(({ members }) => members));
    const y = (members: number) => 44 - (34 * members) / most;
    let edge = '';
    for (const { at, members } of shown)
      edge +=
        edge === '' ? `M${x(at).toFixed(1)},${y(members).toFixed(1)}` : `H${x(at).toFixed(1)}V${y(members).toFixed(1)}`;
    if (edge !== '') edge += `H${x(now).toFixed(1)}`;
    setAttributes(this.#edge, { d: edge });
    setAttributes(this.#area, { d: edge === '' ? '' : `${edge}V44H${x(shown[0]?.at ?? from).toFixed(1)}Z` });
    this.#showAxis(from, now, x);
    const recent = happenings.filter(({ at }) => at >= from).slice(-MOST_MARKS);
    this.#marks.replaceChildren(...recent.map((one) => markOf(one, x(one.at))));
    const counts = new Map<string, number>();
    for (const { kind } of recent) counts.set(KINDS[kind].name, (counts.get(KINDS[kind].name) ?? 0) + 1);
    const told = [...counts].map(([name, count]) => `${count} × ${name}`).join(', ');
    setAttributes(this.#canvas, {
      'aria-label': `The last ${this.span} minutes: ${told === '' ? 'nothing happened' : told}`,
    });
    this.#showLog(happenings);
  }

  #showAxis(from: number, now: number, x: (at: number) => number): void {
    const step = (60_000 * this.span) / 4;
    const ticks: Element[] = [];
    for (let at = Math.ceil(from / step) * step; at <= now; at += step) {
      const tick = svg('path', { d: `M${x(at).toFixed(1)},10V${TOP + 3 * ROW}` });
      const text = svg('text', { x: x(at).toFixed(1), y: HEIGHT - 6 });
      text.textContent = clock(at);
      ticks.push(tick, text);
    }
    this.#axis.replaceChildren(...ticks);
  }

  #showLog(happenings: readonly Happening[]): void {
    const last = happenings.at(-1)?.number ?? 0;
    if (last === this.#listed) return;
    this.#listed = last;
    const lines = happenings.slice(-MOST_LINES).reverse().map(lineOf);
    if (lines.length === 0) {
      const line = document.createElement('li');
      line.className = 'none';
      setText(line, 'Nothing has happened yet.');
      lines.push(line);
    }
    this.#log.replaceChildren(...lines);
  }
}

function markOf({ kind, at, peerId, text, epoch }: Happening, x: number): SVGElement {
  const { row, mark, name } = KINDS[kind];
  const group = svg('g', { class: `mark ${kind}`, transform: `translate(${x.toFixed(1)},${TOP + ROW * (row + 0.5)})` });
  const title = svg('title');
  title.textContent = `${clock(at)} ${name}${peerId === null ? '' : ` ${peerId}`}: ${text} (epoch ${epoch})`;
  group.append(svg('path', { d: mark }), title);
  return group;
}

function lineOf({ kind, at, peerId, text, epoch }: Happening): HTMLLIElement {
  const line = document.createElement('li');
  line.className = kind;
  const part = (tag: string, content: string, className = '') => {
    const element = document.createElement(tag);
    if (className !== '') element.className = className;
    element.textContent = content;
    line.append(element);
  };
  part('time', clock(at));
  part('b', KINDS[kind].name);
  part('code', peerId === null ? '' : shortName(peerId));
  part('span', text);
  part('small', `epoch ${epoch}`);
  return line;
}
