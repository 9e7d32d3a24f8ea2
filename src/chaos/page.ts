/** The report of a run of chaos as one page: figures, and a timeline of peers, epochs and faults. No script, no network. */
import type { Ended, Life } from './observations.ts';
import { describeFault, type FaultKind } from './plan.ts';
import { figures, type Summary } from './report.ts';
import type { Inflicted } from './verdict.ts';

export interface Timeline {
  readonly lives: readonly Life[];
  readonly inflicted: readonly Inflicted[];
  readonly ended: readonly Ended[];
  readonly from: number;
  readonly to: number;
}

const WIDTH = 1_000;
const LEFT = 90;
const ROW = 26;

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

/** A row per peer: when its processes lived, where a view began, and what was done to it. The first row is the coordinator's. */
function timelineSvg({ lives, inflicted, ended, from, to }: Timeline): string {
  const peers = Math.max(0, ...lives.map((life) => life.index + 1));
  const height = (peers + 2) * ROW;
  const x = (at: number) =>
    LEFT + ((WIDTH - LEFT - 10) * (Math.min(to, Math.max(from, at)) - from)) / Math.max(1, to - from);
  const y = (row: number) => row * ROW + 6;
  const parts: string[] = [];
  const label = (row: number, text: string) =>
    parts.push(`<text x="4" y="${y(row) + 12}" font-size="12">${inHtml(text)}</text>`);
  label(0, 'coordinator');
  for (let index = 0; index < peers; index++) label(index + 1, `peer ${index}`);
  for (const { index, lines } of lives) {
    const [first, last] = [lines[0]?.at, lines.at(-1)?.at];
    if (first === undefined || last === undefined || last < from) continue;
    const width = Math.max(1, x(last) - x(first)).toFixed(1);
    parts.push(`<rect x="${x(first).toFixed(1)}" y="${y(index + 1)}" width="${width}" height="14" fill="#cfe8cf"/>`);
    for (const line of lines) {
      if (line.type !== 'view' || line.at < from) continue;
      const text = `epoch ${line.epoch}: ${line.members.map((member) => member.peerId).join(', ')}`;
      const at = x(line.at).toFixed(1);
      parts.push(
        `<line x1="${at}" x2="${at}" y1="${y(index + 1)}" y2="${y(index + 1) + 14}" stroke="#2e7d32"><title>${inHtml(text)}</title></line>`,
      );
    }
  }
  for (const { fault, at, until } of inflicted) {
    const row = fault.kind === 'coordinator' ? 0 : fault.victim + 1;
    const width = Math.max(3, x(until) - x(at)).toFixed(1);
    const colour = COLOURS[fault.kind];
    const title = `${((at - from) / 1_000).toFixed(2)} s: ${describeFault(fault)}`;
    parts.push(
      `<rect x="${x(at).toFixed(1)}" y="${y(row) + 2}" width="${width}" height="10" fill="${colour}" fill-opacity="0.7"><title>${inHtml(title)}</title></rect>`,
    );
  }
  for (const { index, at, how } of ended)
    parts.push(
      `<circle cx="${x(at).toFixed(1)}" cy="${y(index + 1) + 7}" r="4"><title>ended: ${inHtml(String(how))}</title></circle>`,
    );
  for (let tick = 0; tick <= 10; tick++) {
    const at = from + ((to - from) * tick) / 10;
    parts.push(
      `<text x="${x(at).toFixed(1)}" y="${height - 6}" font-size="10" text-anchor="middle">${((at - from) / 1_000).toFixed(0)} s</text>`,
    );
  }
  return `<svg viewBox="0 0 ${WIDTH} ${height}" width="100%" font-family="sans-serif">${parts.join('\n')}</svg>`;
}

function row(...cells: readonly (string | number)[]): string {
  return `<tr>${cells.map((cell) => `<td>${inHtml(String(cell))}</td>`).join('')}</tr>`;
}

export function chaosHtml(summary: Summary, timeline: Timeline): string {
  const { verdict, command, seed, peers, recoveries } = summary;
  const legend = Object.entries(COLOURS).map(([kind, colour]) => `<span style="color:${colour}">■ ${kind}</span>`);
  const result = verdict.broken.length === 0 ? 'No invariant was broken.' : 'Broken:';
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>skein chaos, seed ${seed}</title>
<style>body{font:14px sans-serif;max-width:1100px;margin:2em auto}td,th{padding:2px 12px;text-align:left}</style>
<h1>skein chaos</h1>
<p><code>${inHtml(command)}</code>, ${peers} peers, seed ${seed}</p>
<h2>${result}</h2>
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
<p>${legend.join(' ')} <span style="color:#2e7d32">| a new view</span> ● ended by itself</p>
${timelineSvg(timeline)}
</html>
`;
}
