/** What was sent, how long calls took, and how many were committed, over time. */
import uPlot from 'uplot';
import { bytes, count, seconds as secondsText } from '../eyes/format.ts';
import type { Second } from '../eyes/timeline.ts';

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

/** At most and at least so much is shown (s). */
const LONGEST = 300;
const SHORTEST = 60;

/** What is shown of latencies (s) where there are none: uPlot tells null then. */
const NO_LATENCY: [number, number] = [1e-3, 1];

const TIME = { hour: '2-digit', minute: '2-digit', second: '2-digit' } as const;

/** Round numbers, few of them. */
function logarithmicSplits(min: number, max: number): number[] {
  const steps = max / min > 50 ? [1] : [1, 2, 5];
  const splits: number[] = [];
  if (!(min > 0)) return splits;
  for (let exponent = Math.floor(Math.log10(min)); exponent <= Math.log10(max); exponent++)
    for (const step of steps) {
      const split = Number(`${step}e${exponent}`);
      if (split >= min && split <= max) splits.push(split);
    }
  return splits;
}

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
          x: { range: (_, min, max) => (max > 0 ? [Math.min(min, max - SHORTEST), max] : [0, SHORTEST]) },
          y: isLogarithmic
            ? { distr: 3, range: (_, min, max) => (min > 0 ? [min / 1.6, max * 1.6] : NO_LATENCY) }
            : { range: (_, __, max) => [0, Math.max(1, max * 1.15)] },
        },
        axes: [
          {
            ...axis,
            space: 84,
            size: 22,
            values: (_, at) => at.map((one) => new Date(one * 1_000).toLocaleTimeString('en-GB', TIME)),
          },
          {
            ...axis,
            space: 34,
            size: 62,
            values: (_, all) => all.map((one) => (one === null ? '' : format(one))),
            ...(isLogarithmic ? { splits: (_, __, min, max) => logarithmicSplits(min, max) } : {}),
          },
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
    const from = (seconds.at(-1)?.at ?? 0) - 1_000 * LONGEST;
    const shown = seconds.filter(({ at }) => at >= from);
    for (const chart of this.#all) chart.show(shown);
  }
}
