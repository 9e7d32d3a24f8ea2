/** Charts of several panels side by side, with one legend, as SVG by Vega: the same text for the same points, whatever the machine. */
import { type Mark, parse, type Spec, View } from 'vega';

interface PanelPoint {
  readonly panel: string;
  readonly series: string;
  readonly x: number;
  readonly y: number;
}

/** How a line is drawn. */
export interface Stroke {
  readonly series: string;
  /** On a light page, and on a dark one. */
  readonly colours: readonly [string, string];
  readonly dash: readonly number[];
  readonly width: number;
}

export interface PanelChart {
  readonly title: string;
  /** In lines. */
  readonly subtitle: readonly string[];
  /** Values of the axis, and how they are called. */
  readonly x: { readonly title: string; readonly unit: 'bytes' | 'count'; readonly values: readonly number[] };
  /** Logarithmic, between its ends. */
  readonly y: { readonly title: string; readonly ends: readonly [number, number]; readonly values: readonly number[] };
  /** In the order of the legend. */
  readonly strokes: readonly Stroke[];
  readonly points: readonly PanelPoint[];
}

export type Theme = 'light' | 'dark';

const WIDTH = 270;
const HEIGHT = 270;
const INK: Readonly<Record<Theme, { readonly text: string; readonly faint: string; readonly grid: string }>> = {
  light: { text: '#1f2328', faint: '#59636e', grid: '#d1d9e0' },
  dark: { text: '#f0f6fc', faint: '#9198a1', grid: '#3d444d' },
};
const FONT = '-apple-system, BlinkMacSystemFont, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif';

/** Values of an axis in words, as Vega expressions. */
const WORDS = {
  bytes: "datum.value >= 1048576 ? datum.value / 1048576 + ' MiB' : datum.value / 1024 + ' KiB'",
  count: "'' + datum.value",
} as const;

/** One panel: its lines over grid and axes, all on the scales of the whole. */
function panel({ x, y }: PanelChart, theme: Theme): Mark {
  const { faint, grid } = INK[theme];
  const axis = { gridColor: grid, domain: false, ticks: false, labelColor: faint, titleColor: faint, labelPadding: 6 };
  return {
    type: 'group',
    from: { facet: { name: 'panel', data: 'points', groupby: 'panel' } },
    title: { text: { signal: 'parent.panel' }, anchor: 'start', fontSize: 13, offset: 8 },
    encode: { enter: { width: { value: WIDTH }, height: { value: HEIGHT } } },
    axes: [
      {
        ...axis,
        orient: 'bottom',
        scale: 'x',
        title: x.title,
        values: [...x.values],
        labelOverlap: 'parity',
        titlePadding: 8,
        encode: { labels: { update: { text: { signal: WORDS[x.unit] } } } },
      },
      {
        ...axis,
        orient: 'left',
        scale: 'y',
        title: y.title,
        values: [...y.values],
        format: '~g',
        grid: true,
        gridScale: 'x',
      },
    ],
    marks: [
      {
        type: 'group',
        from: { facet: { name: 'line', data: 'panel', groupby: 'series' } },
        marks: [
          {
            type: 'line',
            from: { data: 'line' },
            encode: {
              enter: {
                x: { scale: 'x', field: 'x' },
                y: { scale: 'y', field: 'y' },
                stroke: { scale: 'colour', field: 'series' },
                strokeDash: { scale: 'dash', field: 'series' },
                strokeWidth: { scale: 'width', field: 'series' },
                strokeJoin: { value: 'round' },
              },
            },
          },
        ],
      },
    ],
  };
}

/** @throws where a point lies outside, as it would be drawn over what is beside the panel */
function checkEnds({ y: { ends }, points }: PanelChart): void {
  for (const { panel, series, y } of points)
    if (y < ends[0] || y > ends[1]) throw new Error(`${series}, ${panel}: ${y} is not within ${ends.join(' to ')}`);
}

function specOf(chart: PanelChart, theme: Theme): Spec {
  checkEnds(chart);
  const { title, subtitle, x, y, strokes, points } = chart;
  const { text, faint } = INK[theme];
  const series = strokes.map((stroke) => stroke.series);
  const domain = [x.values[0]!, x.values.at(-1)!]; // an axis has values
  const range = <T>(of: (stroke: Stroke) => T) => ({
    type: 'ordinal' as const,
    domain: series,
    range: strokes.map(of),
  });
  return {
    padding: 12,
    title: {
      text: title,
      subtitle: [...subtitle],
      anchor: 'start',
      frame: 'group',
      fontSize: 16,
      subtitlePadding: 6,
      subtitleColor: faint,
      offset: 16,
    },
    config: {
      title: { color: text, font: FONT, subtitleFont: FONT, subtitleFontSize: 12 },
      axis: { labelFont: FONT, titleFont: FONT, titleFontWeight: 'normal' },
      legend: { labelFont: FONT, labelFontSize: 12, labelColor: text },
    },
    layout: { columns: 3, padding: 24, align: 'each' },
    data: [{ name: 'points', values: points.map((point) => ({ ...point })) }],
    scales: [
      x.unit === 'bytes'
        ? { name: 'x', type: 'log', base: 2, range: [0, WIDTH], domain }
        : { name: 'x', type: 'linear', range: [0, WIDTH], domain, zero: false },
      { name: 'y', type: 'log', range: [HEIGHT, 0], domain: [...y.ends] },
      { name: 'colour', ...range(({ colours: [light, dark] }) => (theme === 'light' ? light : dark)) },
      { name: 'dash', ...range(({ dash }) => [...dash]) },
      { name: 'width', ...range(({ width }) => width) },
    ],
    legends: [
      {
        stroke: 'colour',
        strokeDash: 'dash',
        strokeWidth: 'width',
        symbolType: 'stroke',
        symbolSize: 300,
        labelLimit: 0,
        orient: 'bottom',
        direction: 'horizontal',
        columns: strokes.length,
        columnPadding: 12,
        offset: 16,
      },
    ],
    marks: [panel(chart, theme)],
  } as Spec; // its types know only some of what ranges may hold
}

/** Transparent, in colours for a light or a dark page. Panels are in the order of their points. */
export async function panelsSvg(chart: PanelChart, theme: Theme): Promise<string> {
  return `${await new View(parse(specOf(chart, theme)), { renderer: 'none' }).toSVG()}\n`;
}
