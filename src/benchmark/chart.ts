/** Line charts as SVG, by Vega, which needs no browser. It is large, so who wants charts installs it. */
import type { Spec } from 'vega';
import { ArgumentError } from '../errors.ts';

export interface Point {
  readonly series: string;
  readonly x: number;
  readonly y: number;
}

export interface Chart {
  readonly title: string;
  readonly x: { readonly title: string; readonly base: 2 | 10; readonly values?: readonly number[] };
  readonly y: { readonly title: string; readonly zero: boolean };
}

const WIDTH = 720;
const HEIGHT = 400;

/** Bytes in words, as a Vega expression: powers of two where the axis has them, else of ten. */
const BYTES = {
  2: "datum.value >= 1048576 ? datum.value / 1048576 + ' MiB' : datum.value / 1024 + ' KiB'",
  10: "datum.value >= 1e9 ? datum.value / 1e9 + ' GB' : datum.value >= 1e6 ? datum.value / 1e6 + ' MB' : datum.value / 1e3 + ' kB'",
} as const;

async function loadVega(): Promise<typeof import('vega')> {
  try {
    return await import('vega');
  } catch (cause) {
    throw new ArgumentError(
      `Charts are drawn by the package vega, which can't be loaded: npm install vega. (${cause})`,
    );
  }
}

/** Lines over a logarithmic axis of bytes, one for each series. */
export async function chartSvg({ title, x, y }: Chart, points: readonly Point[]): Promise<string> {
  const spec: Spec = {
    width: WIDTH,
    height: HEIGHT,
    padding: 12,
    background: 'white',
    title: { text: title },
    data: [{ name: 'points', values: points.map((point) => ({ ...point })) }],
    scales: [
      { name: 'x', type: 'log', base: x.base, range: 'width', domain: { data: 'points', field: 'x' } },
      { name: 'y', type: 'linear', range: 'height', nice: true, zero: y.zero, domain: { data: 'points', field: 'y' } },
      { name: 'colour', type: 'ordinal', range: 'category', domain: { data: 'points', field: 'series' } },
    ],
    axes: [
      {
        orient: 'bottom',
        scale: 'x',
        title: x.title,
        ...(x.values === undefined ? { tickCount: 8 } : { values: [...x.values] }),
        encode: { labels: { update: { text: { signal: BYTES[x.base] } } } },
      },
      { orient: 'left', scale: 'y', title: y.title, grid: true },
    ],
    legends: [{ stroke: 'colour', symbolType: 'stroke' }],
    marks: [
      {
        type: 'group',
        from: { facet: { name: 'series', data: 'points', groupby: 'series' } },
        marks: [
          {
            type: 'line',
            from: { data: 'series' },
            encode: {
              enter: {
                x: { scale: 'x', field: 'x' },
                y: { scale: 'y', field: 'y' },
                stroke: { scale: 'colour', field: 'series' },
                strokeWidth: { value: 2 },
              },
            },
          },
        ],
      },
    ],
  };
  const vega = await loadVega();
  return new vega.View(vega.parse(spec), { renderer: 'none' }).toSVG();
}
