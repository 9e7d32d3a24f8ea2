/** The figures that every benchmark quotes. */

export function median(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Bytes of tensor per second. */
export function algbw(bytes: number, seconds: number): number {
  return bytes / seconds;
}

/** As nccl-tests define it for all-reduce: what each rank's link carries per second. */
export function busbw(bytes: number, seconds: number, worldSize: number): number {
  return (algbw(bytes, seconds) * 2 * (worldSize - 1)) / worldSize;
}

export function formatBytes(bytes: number): string {
  if (bytes >= 2 ** 20) return `${bytes / 2 ** 20} MiB`;
  return `${bytes / 1024} KiB`;
}

export function formatSeconds(seconds: number): string {
  return seconds >= 1 ? `${seconds.toFixed(2)} s` : `${(seconds * 1_000).toFixed(seconds < 0.001 ? 3 : 2)} ms`;
}

export function formatRate(bytesPerSecond: number): string {
  return (bytesPerSecond / 1e9).toFixed(bytesPerSecond < 1e8 ? 3 : 2);
}
