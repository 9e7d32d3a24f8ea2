/** Numbers as they are read. */

const UNITS = ['', 'k', 'M', 'G', 'T', 'P'];

/** Three digits and a factor: `1.24 G`. */
function scaled(value: number): string {
  let unit = 0;
  let rest = value;
  while (rest >= 999.5 && unit < UNITS.length - 1) {
    rest /= 1_000;
    unit += 1;
  }
  const digits = rest >= 100 || (unit === 0 && Number.isInteger(rest)) ? 0 : rest >= 10 ? 1 : 2;
  return `${rest.toFixed(digits)} ${UNITS[unit]}`;
}

export function bytes(value: number): string {
  return value < 1 ? '0 B' : `${scaled(value)}B`;
}

export function rate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? '–' : `${bytes(bytesPerSecond)}/s`;
}

export function count(value: number): string {
  return value < 10_000 ? value.toLocaleString('en') : scaled(value).trim();
}

/** Milliseconds with three digits. */
export function milliseconds(ms: number | null): string {
  if (ms === null) return '–';
  if (ms >= 9_995) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function seconds(value: number | null): string {
  return milliseconds(value === null ? null : 1_000 * value);
}

export function clock(at: number): string {
  return new Date(at).toLocaleTimeString('en-GB');
}

export function span(ms: number): string {
  const total = Math.max(0, Math.floor(ms / 1_000));
  const [days, hours, minutes] = [
    Math.floor(total / 86_400),
    Math.floor(total / 3_600) % 24,
    Math.floor(total / 60) % 60,
  ];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${total % 60} s` : `${total} s`;
}

/** The part of a peer's name that people use. */
export function shortName(peerId: string): string {
  const at = peerId.indexOf('-');
  return at > 0 ? peerId.slice(0, at) : peerId.slice(0, 8);
}
