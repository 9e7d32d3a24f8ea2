/** What was asked of all-reduce beside other libraries, set beside the figures of one run. */
import { formatBytes } from '../../src/benchmark/statistics.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** The figures of one side at one world size and tensor size. */
export interface Row {
  readonly side: string;
  readonly worldSize: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly busbw: number;
  /** Processor time of one rank, all its threads, for a GB of tensor. */
  readonly cpuSecondsPerGB: number;
  readonly maxRssKiB: number;
}

/** What one process needs for a 256 MiB all-reduce. */
export interface MemoryRow {
  readonly side: string;
  readonly worldSize: number;
  readonly bytes: number;
  /** Peak minus tensor and `out`, counted from nothing. */
  readonly aboveTensorsKiB: number;
  /** The same without what a Node process takes that does nothing. */
  readonly aboveNodeKiB: number;
  /** Peak minus what was resident just before. */
  readonly growthKiB: number;
}

export interface Bar {
  readonly what: string;
  readonly wanted: string;
  readonly measured: string;
  readonly met: boolean;
}

/** A ratio that should be at least, or at most, so much. */
export function bar(what: string, ratio: number, sign: '≥' | '≤', bound: number): Bar {
  const met = sign === '≥' ? ratio >= bound : ratio <= bound;
  return { what, wanted: `${sign} ${bound.toFixed(2)}`, measured: ratio.toFixed(2), met };
}

export function find(rows: readonly Row[], side: string, worldSize: number, bytes: number): Row | undefined {
  return rows.find((row) => row.side === side && row.worldSize === worldSize && row.bytes === bytes);
}

/** One world and tensor size. */
function barsOf(rows: readonly Row[], worldSize: number, bytes: number): Bar[] {
  const of = (side: string) => find(rows, side, worldSize, bytes);
  const [gloo, openmpi, raw, overTcp] = ['gloo', 'openmpi', 'raw', 'skein-tcp'].map(of);
  const where = `N=${worldSize}, ${formatBytes(bytes)}`;
  const bars: Bar[] = [];
  const own = [of('skein'), of('skein-inline')].filter((row) => row !== undefined);
  const best = own.sort((left, right) => left.seconds - right.seconds)[0];
  if (bytes >= 64 * KIB && best !== undefined) {
    const engine = best.side === 'skein' ? 'thread' : 'inline';
    if (gloo !== undefined) bars.push(bar(`Gloo's time (${engine}), ${where}`, gloo.seconds / best.seconds, '≥', 2));
    if (openmpi !== undefined)
      bars.push(bar(`Open MPI's time (${engine}), ${where}`, openmpi.seconds / best.seconds, '≥', 1.5));
  }
  if (bytes >= 64 * KIB && overTcp !== undefined) {
    if (gloo !== undefined) bars.push(bar(`Gloo's time, over TCP, ${where}`, gloo.seconds / overTcp.seconds, '≥', 1.5));
    if (raw !== undefined && bytes >= 16 * MIB)
      bars.push(bar(`raw TCP's time, over TCP, ${where}`, raw.seconds / overTcp.seconds, '≥', 0.9));
  }
  const [thread] = own.filter((row) => row.side === 'skein');
  if (thread !== undefined && gloo !== undefined) {
    if (bytes === 4 * KIB) bars.push(bar(`latency beside Gloo's, ${where}`, thread.seconds / gloo.seconds, '≤', 0.75));
    if (bytes >= 16 * MIB)
      bars.push(
        bar(`processor time per GB beside Gloo's, ${where}`, thread.cpuSecondsPerGB / gloo.cpuSecondsPerGB, '≤', 1),
      );
  }
  if (bytes === 4 * KIB && worldSize <= 4 && openmpi !== undefined) {
    for (const side of ['skein-eager', 'skein-inline-eager']) {
      const eager = of(side);
      if (eager === undefined) continue;
      bars.push(bar(`latency beside Open MPI's, ${side}, ${where}`, eager.seconds / openmpi.seconds, '≤', 2.5));
    }
  }
  return bars;
}

/** In the order in which the figures were measured. */
export function judge(rows: readonly Row[], memory: readonly MemoryRow[]): Bar[] {
  const cells = new Map(rows.map(({ worldSize, bytes }) => [`${worldSize} ${bytes}`, { worldSize, bytes }]));
  const bars = [...cells.values()].flatMap(({ worldSize, bytes }) => barsOf(rows, worldSize, bytes));
  for (const row of memory) {
    const what = `memory of ${row.side}, N=${row.worldSize}, ${formatBytes(row.bytes)}`;
    const figures = {
      'peak above tensor and out': row.aboveTensorsKiB,
      'the same above a bare Node process': row.aboveNodeKiB,
      'growth during the call': row.growthKiB,
    };
    for (const [figure, kib] of Object.entries(figures))
      bars.push({
        what: `${what}: ${figure}`,
        wanted: '≤ 64 MiB',
        measured: `${Math.round(kib / KIB)} MiB`,
        met: kib <= 64 * KIB,
      });
  }
  return bars;
}
