/** A strict reader of what Prometheus reads (text format 0.0.4), written from its description and not from any library. */

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: Sample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const NUMBER = /^[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)$|^NaN$/i;

function unescaped(text: string): string {
  return text.replace(/\\(.)/g, (_, letter: string) => {
    if (letter === 'n') return '\n';
    if (letter === '\\' || letter === '"') return letter;
    throw new Error(`\\${letter} is no escape`);
  });
}

function readLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  let rest = text;
  while (rest !== '') {
    const [whole, name, value] = /^([^=]+)="((?:[^"\\]|\\.)*)"(?:,|$)/.exec(rest) ?? [];
    if (whole === undefined || name === undefined || value === undefined) throw new Error(`no labels: ${rest}`);
    if (!LABEL.test(name) || name in labels) throw new Error(`no label: ${name}`);
    labels[name] = unescaped(value);
    rest = rest.slice(whole.length);
  }
  return labels;
}

function numberOf(text: string): number {
  if (!NUMBER.test(text)) throw new Error(`no number: ${text}`);
  return text.includes('Inf') ? Number(text.replace('Inf', 'Infinity')) : Number(text);
}

/** Families by their names. @throws when anything is not as it must be */
export function readExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, Family>();
  const helps = new Map<string, string>();
  const series = new Set<string>();
  let current: Family | null = null;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const [, keyword, about, rest = ''] = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line) ?? [];
    if (keyword === 'HELP' && about !== undefined) {
      helps.set(about, rest);
    } else if (keyword === 'TYPE' && about !== undefined) {
      if (families.has(about)) throw new Error(`${about} comes twice`);
      if (!['counter', 'gauge', 'histogram'].includes(rest)) throw new Error(`no type: ${rest}`);
      current = { name: about, type: rest, help: helps.get(about) ?? '', samples: [] };
      families.set(about, current);
    } else {
      const [, name, labelText = '', value] = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (name === undefined || value === undefined || !NAME.test(name)) throw new Error(`no sample: ${line}`);
      const base = current?.type === 'histogram' ? name.replace(/_(?:bucket|sum|count)$/, '') : name;
      if (current === null || base !== current.name) throw new Error(`${name} is not of the family before it`);
      const labels = readLabels(labelText);
      const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
      if (series.has(key)) throw new Error(`${key} comes twice`);
      series.add(key);
      current.samples.push({ name, labels, value: numberOf(value) });
    }
  }
  for (const family of families.values()) check(family);
  return families;
}

function check({ name, type, help, samples }: Family): void {
  if (help === '') throw new Error(`${name} has no help`);
  if (type === 'counter' && !name.endsWith('_total')) throw new Error(`the counter ${name} does not end with _total`);
  if (type === 'counter' && samples.some(({ value }) => !(value >= 0))) throw new Error(`${name} is less than nothing`);
  if (type !== 'histogram') return;
  const counts = samples.filter((sample) => sample.name === `${name}_count`);
  for (const { labels, value } of counts) {
    const isSame = (other: Sample) => Object.entries(labels).every(([label, text]) => other.labels[label] === text);
    const buckets = samples.filter((sample) => sample.name === `${name}_bucket` && isSame(sample));
    let before = { bound: Number.NEGATIVE_INFINITY, count: 0 };
    for (const bucket of buckets) {
      const bound = numberOf(bucket.labels['le'] ?? '');
      if (bound <= before.bound || bucket.value < before.count) throw new Error(`the buckets of ${name} do not grow`);
      before = { bound, count: bucket.value };
    }
    if (before.bound !== Number.POSITIVE_INFINITY || before.count !== value)
      throw new Error(`the last bucket of ${name} does not count all`);
  }
}
