/** docs/troubleshooting.md has a section for each code, and shows messages as they are. */
import { readdirSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { ROOT, read } from './documents.ts';
import { blocksOf, headingsOf } from './markdown.ts';
import { type Failure, provokeAll } from './provoke.ts';

const TEXT = read('docs/troubleshooting.md');
/** Most errors are in one module; what few programs need is where it is thrown. */
const sources = readdirSync(`${ROOT}src`, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
const codes = [
  ...new Set(
    sources
      .flatMap((name) => [...read(`src/${name}`).matchAll(/(?:super|SkeinError)\(\s*'(SKEIN_[A-Z_]+)'/g)])
      .map((match) => match[1]!)
      .concat('SKEIN_INTERNAL'),
  ),
].sort();

/** What differs from run to run: names of peers, numbers, and where a program is. */
function general(message: string): string {
  return message
    .replaceAll(/\bp\d+-[0-9a-f]+\b/g, 'peer')
    .replaceAll(/(?:file:\/\/)?\/[^\s()]+/g, 'path')
    .replaceAll(/\d+(?:\.\d+)?/g, '0')
    .replaceAll(/\s+/g, ' ')
    .trim();
}

/** Code → messages that the document shows for it. */
function shown(): Map<string, string[]> {
  const lines = TEXT.split('\n');
  const sections = new Map<string, string[]>();
  for (const { line, language, text } of blocksOf('docs/troubleshooting.md', TEXT)) {
    const heading = lines.slice(0, line).findLast((one) => one.startsWith('## ')) ?? '';
    const code = /SKEIN_[A-Z_]+/.exec(heading)?.[0];
    if (code !== undefined && language === 'text') sections.set(code, [...(sections.get(code) ?? []), text]);
  }
  return sections;
}

describe('docs/troubleshooting.md', () => {
  let failures: readonly Failure[] = [];
  beforeAll(async () => {
    failures = await provokeAll();
  }, 60_000);

  it('has a section for each code, and no other', () => {
    const sections = headingsOf(TEXT).flatMap(({ text }) => /^SKEIN_[A-Z_]+$/.exec(text) ?? []);
    expect([...sections].sort()).toEqual(codes);
  });

  it.each(codes)('shows for %s messages that are really printed', (code) => {
    const real = failures.filter((one) => one.code === code).map(({ message }) => general(message));
    const examples = shown().get(code) ?? [];
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) {
      const wanted = general(example);
      const found = real.find(
        (one) => one === wanted || (wanted.endsWith(' …') && one.startsWith(wanted.slice(0, -2))),
      );
      expect(found ?? real, code).toBe(found ?? wanted);
    }
  });

  it('is where README sends its readers', () => {
    const table = read('README.md');
    for (const code of codes.filter((one) => one !== 'SKEIN_INTERNAL')) expect(table).toContain(`\`${code}\``);
  });
});
