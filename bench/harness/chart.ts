/** Line charts as SVG, by Vega, which needs no browser. */
import * as vega from 'vega';

export interface Point {
  readonly series: string;
  readonly bytes: number;
  /** GB/s */
  readonly rate: number;
}

const WIDTH = 720;
const HEIGHT = 400;

export async function chartSvg(title: string, points: readonly Point[]): Promise<string> {
  const spec: vega.Spec = {
    width: WIDTH,
    height: HEIGHT,
    padding: 12,
    background: 'white',
    title: { text: title },
    data: [{ name: 'points', values: points.map((point) => ({ ...point })) }],
    scales: [
      { name: 'x', type: 'log', base: 2, range: 'width', domain: { data: 'points', field: 'bytes' } },
      { name: 'y', type: 'linear', range: 'height', nice: true, zero: true, domain: { data: 'points', field: 'rate' } },
      { name: 'colour', type: 'ordinal', range: 'category', domain: { data: 'points', field: 'series' } },
    ],
    axes: [
      {
        orient: 'bottom',
        scale: 'x',
        title: 'tensor',
        values: [...new Set(points.map((point) => point.bytes))],
        encode: {
          labels: {
            update: {
              text: { signal: "datum.value >= 1048576 ? datum.value / 1048576 + ' MiB' : datum.value / 1024 + ' KiB'" },
            },
          },
        },
      },
      { orient: 'left', scale: 'y', title: 'bus bandwidth, GB/s', grid: true },
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
                x: { scale: 'x', field: 'bytes' },
                y: { scale: 'y', field: 'rate' },
                stroke: { scale: 'colour', field: 'series' },
                strokeWidth: { value: 2 },
              },
            },
          },
        ],
      },
    ],
  };
  return new vega.View(vega.parse(spec), { renderer: 'none' }).toSVG();
}
