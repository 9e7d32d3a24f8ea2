/** What was sent, how long calls took, and how many were committed, over time. */
import uPlot from 'uplot';
import type { Second } from '../eyes/timeline.ts';
import { bytes, count, seconds as secondsText } from './format.ts';

type Values = (number | null)[];

interface Line {
  readonly label: string;
  /** A custom property of the style sheet. */
  readonly colour: string;
  readonly isFilled: boolean;
  readonly of: (second: Second) => number | null;
}

interface ChartOptions {
  readonly lines: readonly Line[];
  readonly format: (value: number) => string;
  readonly isLogarithmic?: boolean;
}

const HEIGHT = 128;

/** At most so many minutes are shown. */
const MINUTES = 5;

function property(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

class Chart {
  readonly #parent: HTMLElement;
  readonly #options: ChartOptions;
  #plot: uPlot | null = null;
  #data: uPlot.AlignedData = [[]];

  constructor(parent: HTMLElement, options: ChartOptions) {
    this.#parent = parent;
    this.#options = options;
    new ResizeObserver(() => this.#plot?.setSize({ width: parent.clientWidth, height: HEIGHT })).observe(parent);
  }

  show(seconds: readonly Second[]): void {
    const { lines } = this.#options;
    const values = lines.map((line) => seconds.map(line.of)) as Values[];
    this.#data = [seconds.map(({ at }) => at / 1_000), ...values];
    if (this.#plot === null) this.draw();
    else this.#plot.setData(this.#data);
  }

  /** Anew, as colours are fixed when it is made. */
  draw(): void {
    const { lines, format, isLogarithmic = false } = this.#options;
    const axis = {
      stroke: property('--muted'),
      grid: { stroke: property('--line'), width: 1 },
      ticks: { show: false },
      font: '11px ui-sans-serif, system-ui, sans-serif',
    };
    this.#plot?.destroy();
    this.#plot = new uPlot(
      {
        width: this.#parent.clientWidth,
        height: HEIGHT,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 6 } },
        scales: {
          x: { range: (_, __, max) => [max - 60 * MINUTES, max] },
          y: isLogarithmic ? { distr: 3 } : { range: (_, __, max) => [0, Math.max(1, max * 1.15)] },
        },
        axes: [
          {
            ...axis,
            space: 70,
            size: 22,
            values: (_, at) =>
              at.map((one) =>
                new Date(one * 1_000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' }),
              ),
          },
          { ...axis, space: 34, size: 62, values: (_, all) => all.map((one) => (one === null ? '' : format(one))) },
        ],
        series: [
          {},
          ...lines.map(({ label, colour, isFilled }) => ({
            label,
            stroke: property(colour),
            width: 1.75,
            points: { show: false },
            spanGaps: isLogarithmic,
            ...(isFilled ? { fill: `color-mix(in srgb, ${property(colour)} 16%, transparent)` } : {}),
          })),
        ],
      },
      this.#data,
      this.#parent,
    );
  }
}

export class Charts {
  readonly #all: readonly Chart[];

  constructor(places: { readonly rate: HTMLElement; readonly latency: HTMLElement; readonly calls: HTMLElement }) {
    this.#all = [
      new Chart(places.rate, {
        lines: [{ label: 'sent', colour: '--accent', isFilled: true, of: ({ bytesPerSecond }) => bytesPerSecond }],
        format: (value) => `${bytes(value)}/s`,
      }),
      new Chart(places.latency, {
        lines: [
          { label: 'p99', colour: '--warn', isFilled: false, of: ({ p99 }) => p99 },
          { label: 'p50', colour: '--accent', isFilled: false, of: ({ p50 }) => p50 },
        ],
        format: secondsText,
        isLogarithmic: true,
      }),
      new Chart(places.calls, {
        lines: [{ label: 'committed', colour: '--good', isFilled: true, of: ({ committed }) => committed }],
        format: count,
      }),
    ];
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const chart of this.#all) chart.draw();
    });
  }

  show(seconds: readonly Second[]): void {
    const from = (seconds.at(-1)?.at ?? 0) - 60_000 * MINUTES;
    const shown = seconds.filter(({ at }) => at >= from);
    for (const chart of this.#all) chart.show(shown);
  }
}
