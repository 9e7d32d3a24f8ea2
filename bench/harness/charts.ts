/** The charts of the README, each made of a committed record and of nothing else. */
import { formatBytes } from '../../src/benchmark/statistics.ts';
import type { Row } from './bars.ts';
import type { Machine } from './machine.ts';
import { type PanelChart, panelsSvg, type Stroke, type Theme } from './panels.ts';

/** What is read of a record. */
interface Recorded {
  readonly machine: Machine;
  readonly date: string;
  readonly command: readonly string[];
  /** Processes that ran or waited for a core in the minute before; records of earlier releases do not tell. */
  readonly load?: number;
  readonly rows: readonly Row[];
}

export interface Records {
  /** `npm run bench` */
  readonly allreduce: Recorded;
  /** `npm run bench -- --scaling` */
  readonly scaling: Recorded;
}

export interface Drawing {
  /** In docs/. */
  readonly file: string;
  readonly svg: string;
}

/** Colours that are told apart by those who see few, after Okabe and Ito; darker or lighter than theirs where the page wants it. */
const STROKES: Readonly<Record<string, Stroke>> = {
  skein: { series: 'Skein', colours: ['#0969da', '#58a6ff'], dash: [], width: 3 },
  'skein-inline': { series: 'Skein, inline engine', colours: ['#0969da', '#58a6ff'], dash: [2, 3], width: 2.5 },
  'skein-tcp': { series: 'Skein over TCP', colours: ['#56b4e9', '#a5d6ff'], dash: [7, 4], width: 1.75 },
  gloo: { series: 'Gloo', colours: ['#d55e00', '#ff9a57'], dash: [], width: 1.75 },
  openmpi: { series: 'Open MPI over TCP', colours: ['#008a64', '#3fd0a5'], dash: [], width: 1.75 },
  raw: { series: 'raw TCP ring', colours: ['#6e7781', '#8c959f'], dash: [2, 4], width: 1.75 },
  'raw-unix': { series: 'raw ring, Unix sockets', colours: ['#6e7781', '#8c959f'], dash: [8, 3, 2, 3], width: 1.75 },
};

const RATE = 'bus bandwidth, GB/s';

/** From so many on, others are seen in the figures. */
const BUSY_LOAD = 1;

function about({ machine, date, command, load = 0 }: Recorded): readonly string[] {
  const { cpu, cores, node, commit } = machine;
  const busy = load < BUSY_LOAD ? '' : `; beside other work (load ${Math.round(load)} on ${cores} cores)`;
  return [
    `f32 sum between processes on one machine: ${cpu}, ${cores} cores, Node ${node.slice(1)}`,
    `npm run bench -- ${command.join(' ')}; ${date.slice(0, 10)}, commit ${commit}${busy}`,
  ];
}

/** One panel for each of these, with a point for each row that is in it. */
function panelsOf(
  rows: readonly Row[],
  panels: readonly number[],
  panelOf: (row: Row) => number,
  name: (panel: number) => string,
  xOf: (row: Row) => number,
): Pick<PanelChart, 'points' | 'strokes'> {
  const points = panels.flatMap((panel) =>
    rows.flatMap((row) => {
      const stroke = STROKES[row.side];
      const y = row.busbw / 1e9;
      if (stroke === undefined || panelOf(row) !== panel) return [];
      return [{ panel: name(panel), series: stroke.series, x: xOf(row), y }];
    }),
  );
  const drawn = new Set(points.map(({ series }) => series));
  return { points, strokes: Object.values(STROKES).filter(({ series }) => drawn.has(series)) };
}

function distinct(values: readonly number[]): readonly number[] {
  return [...new Set(values)].sort((left, right) => left - right);
}

function allReduceChart(record: Recorded): PanelChart {
  const { rows } = record;
  const worlds = distinct(rows.map(({ worldSize }) => worldSize));
  return {
    title: 'All-reduce: bus bandwidth by size of the tensor',
    subtitle: about(record),
    x: { title: 'tensor', unit: 'bytes', values: distinct(rows.map(({ bytes }) => bytes)) },
    y: { title: RATE, ends: [0.0002, 8], values: [0.001, 0.01, 0.1, 1] },
    ...panelsOf(
      rows,
      worlds,
      ({ worldSize }) => worldSize,
      (worldSize) => `${worldSize} processes`,
      ({ bytes }) => bytes,
    ),
  };
}

function scalingChart(record: Recorded): PanelChart {
  const { rows } = record;
  return {
    title: 'All-reduce: bus bandwidth by number of processes',
    subtitle: about(record),
    x: { title: 'processes', unit: 'count', values: distinct(rows.map(({ worldSize }) => worldSize)) },
    y: { title: RATE, ends: [0.002, 8], values: [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3] },
    ...panelsOf(
      rows,
      distinct(rows.map(({ bytes }) => bytes)),
      ({ bytes }) => bytes,
      formatBytes,
      ({ worldSize }) => worldSize,
    ),
  };
}

const THEMES: readonly Theme[] = ['light', 'dark'];

export async function drawCharts({ allreduce, scaling }: Records): Promise<readonly Drawing[]> {
  const charts = { allreduce: allReduceChart(allreduce), scaling: scalingChart(scaling) };
  const drawings: Drawing[] = [];
  for (const [name, chart] of Object.entries(charts)) {
    for (const theme of THEMES) drawings.push({ file: `${name}-${theme}.svg`, svg: await panelsSvg(chart, theme) });
  }
  return drawings;
}
