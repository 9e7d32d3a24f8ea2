/** The report of a run of chaos as one page: figures, and a timeline of peers, epochs and faults. No script, no network. */
import type { Ended, Life } from './observations.ts';
import { describeFault, type FaultKind, type Inflicted } from './plan.ts';
import { figures, type Summary } from './report.ts';

export interface Timeline {
  readonly lives: readonly Life[];
  readonly inflicted: readonly Inflicted[];
  readonly ended: readonly Ended[];
  readonly from: number;
  readonly to: number;
}

const WIDTH = 1_000;
const LEFT = 90;
const RIGHT = 20;
const ROW = 26;
const BAR = 14;
const COORDINATOR_ROW = 0;
const EPOCH_ROW = 1;
const FIRST_PEER_ROW = 2;

const COLOURS: Readonly<Record<FaultKind, string>> = {
  kill: '#c62828',
  restart: '#ec407a',
  stop: '#ef6c00',
  coordinator: '#6a1b9a',
  partition: '#1565c0',
  slow: '#00838f',
  loss: '#558b2f',
  delay: '#5d4037',
  reorder: '#c0a000',
  corrupt: '#37474f',
};

function inHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Where times and rows lie in the drawing. */
class Scale {
  readonly #from: number;
  readonly #to: number;

  constructor({ from, to }: Timeline) {
    this.#from = from;
    this.#to = to;
  }

  x(at: number): number {
    const inside = Math.min(this.#to, Math.max(this.#from, at)) - this.#from;
    return LEFT + ((WIDTH - LEFT - RIGHT) * inside) / Math.max(1, this.#to - this.#from);
  }

  y(row: number): number {
    return row * ROW + 6;
  }
}

function textAt(x: number, y: number, text: string | number, attributes: string): string {
  return `<text x="${x.toFixed(1)}" y="${y}" ${attributes}>${inHtml(String(text))}</text>`;
}

/** When each epoch was first seen; those that would lie upon one another are left out. */
function epochLabels({ lives, from, to }: Timeline, scale: Scale): readonly string[] {
  const firsts = new Map<number, number>();
  for (const { lines } of lives)
    for (const line of lines)
      if (line.type === 'view') firsts.set(line.epoch, Math.min(line.at, firsts.get(line.epoch) ?? line.at));
  let free = 0;
  return [...firsts]
    .toSorted(([left], [right]) => left - right)
    .flatMap(([epoch, at]) => {
      const x = scale.x(at);
      if (at < from || at > to || x < free) return [];
      free = x + 18;
      return [textAt(x, scale.y(EPOCH_ROW) + 12, epoch, 'font-size="10" fill="#2e7d32" text-anchor="middle"')];
    });
}

/** When its processes lived, and where a view began. */
function lifeMarks({ index, lines }: Life, { from, to }: Timeline, scale: Scale): readonly string[] {
  const [first, last] = [lines[0]?.at, lines.at(-1)?.at];
  if (first === undefined || last === undefined || last < from) return [];
  const y = scale.y(FIRST_PEER_ROW + index);
  const width = Math.max(1, scale.x(last) - scale.x(first)).toFixed(1);
  const views = lines.flatMap((line) => {
    if (line.type !== 'view' || line.at < from || line.at > to) return [];
    const text = `epoch ${line.epoch}: ${line.members.map((member) => member.peerId).join(', ')}`;
    const x = scale.x(line.at).toFixed(1);
    return [
      `<line x1="${x}" x2="${x}" y1="${y}" y2="${y + BAR}" stroke="#2e7d32"><title>${inHtml(text)}</title></line>`,
    ];
  });
  return [
    `<rect x="${scale.x(first).toFixed(1)}" y="${y}" width="${width}" height="${BAR}" fill="#cfe8cf"/>`,
    ...views,
  ];
}

/** A bar for as long as it lasted. */
function faultMark({ fault, at, until }: Inflicted, from: number, scale: Scale): string {
  const y = scale.y(fault.kind === 'coordinator' ? COORDINATOR_ROW : FIRST_PEER_ROW + fault.victim);
  const width = Math.max(4, scale.x(until) - scale.x(at)).toFixed(1);
  const title = `${((at - from) / 1_000).toFixed(2)} s: ${describeFault(fault)}`;
  const shape = `x="${scale.x(at).toFixed(1)}" y="${y}" width="${width}" height="${BAR}"`;
  return `<rect ${shape} fill="${COLOURS[fault.kind]}" fill-opacity="0.8"><title>${inHtml(title)}</title></rect>`;
}

function timelineSvg(timeline: Timeline): string {
  const { lives, inflicted, ended, from, to } = timeline;
  const peers = Math.max(0, ...lives.map((life) => life.index + 1));
  const height = (FIRST_PEER_ROW + peers + 1) * ROW;
  const scale = new Scale(timeline);
  const names = ['coordinator', 'epoch', ...Array.from({ length: peers }, (_, index) => `peer ${index}`)];
  const ends = ended
    .filter((end) => !end.byFault && end.at >= from)
    .map(({ index, at, how }) => {
      const y = scale.y(FIRST_PEER_ROW + index) + BAR / 2;
      return `<circle cx="${scale.x(at).toFixed(1)}" cy="${y}" r="4"><title>ended: ${inHtml(String(how))}</title></circle>`;
    });
  const ticks = Array.from({ length: 11 }, (_, tick) => from + ((to - from) * tick) / 10).map((at) =>
    textAt(scale.x(at), height - 6, `${((at - from) / 1_000).toFixed(0)} s`, 'font-size="10" text-anchor="middle"'),
  );
  const parts = [
    ...names.map((name, index) => textAt(4, scale.y(index) + 12, name, 'font-size="12"')),
    ...lives.flatMap((life) => lifeMarks(life, timeline, scale)),
    ...epochLabels(timeline, scale),
    ...inflicted.map((one) => faultMark(one, from, scale)),
    ...ends,
    ...ticks,
  ];
  return `<svg viewBox="0 0 ${WIDTH} ${height}" width="100%" font-family="sans-serif">${parts.join('\n')}</svg>`;
}

function row(...cells: readonly (string | number)[]): string {
  return `<tr>${cells.map((cell) => `<td>${inHtml(String(cell))}</td>`).join('')}</tr>`;
}

export function chaosHtml(summary: Summary, timeline: Timeline): string {
  const { verdict, command, seed, peers, recoveries } = summary;
  const legend = recoveries.map(({ kind }) => `<span style="color:${COLOURS[kind]}">■</span> ${kind}`);
  const result = verdict.broken.length === 0 ? 'No invariant was broken.' : 'Broken:';
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>skein chaos, seed ${seed}</title>
<style>body{font:14px sans-serif;max-width:1100px;margin:2em auto}td,th{padding:2px 12px;text-align:left;vertical-align:top}td:first-child{white-space:nowrap}.broken{color:#b71c1c}.kept{color:#1b5e20}</style>
<h1>skein chaos</h1>
<p><code>${inHtml(command)}</code>, ${peers} peers, seed ${seed}</p>
<h2 class="${verdict.broken.length === 0 ? 'kept' : 'broken'}">${result}</h2>
<ul>${verdict.broken.map((text) => `<li>${inHtml(text)}</li>`).join('')}</ul>
<table>
${figures(summary)
  .map(([name, value]) => row(name, value))
  .join('\n')}
</table>
<h2>Longest pause of the slowest other peer, by fault</h2>
<table><tr><th>fault</th><th>times</th><th>median</th><th>p99</th><th>longest</th></tr>
${recoveries.map((one) => row(one.kind, one.count, ...[one.medianMs, one.p99Ms, one.maxMs].map((ms) => `${ms.toFixed(0)} ms`))).join('\n')}
</table>
<h2>Timeline</h2>
<p>${legend.join(' &nbsp; ')} &nbsp; <span style="color:#2e7d32">| a new view</span> &nbsp; ● failed or ended by itself</p>
${timelineSvg(timeline)}
</html>
`;
}
