/** Output of several processes on one terminal: whole lines, each with its name, whatever pieces the pipes deliver. */
import { PassThrough, Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LinePrefixer, LONGEST_LINE, PrefixStream } from '../../src/launch/lines.ts';

/** All that comes out for text that arrives in these pieces, its end included. */
function shown(pieces: readonly string[], prefix = '[a] '): string {
  const prefixer = new LinePrefixer(prefix);
  return pieces.map((piece) => prefixer.push(piece)).join('') + prefixer.flush();
}

/** Cuts text at these places, taken modulo its length. */
function cut(text: string, places: readonly number[]): string[] {
  const sorted = places.map((place) => place % (text.length + 1)).sort((left, right) => left - right);
  return [0, ...sorted].map((from, index) => text.slice(from, sorted[index] ?? text.length));
}

/** Text with many line feeds, empty lines, and characters that are more than one code unit or byte. */
const anyText = fc
  .array(fc.oneof(fc.constantFrom('\n', '\n\n', '\r\n', '🪿', 'ü', ''), fc.string({ maxLength: 12 })), {
    maxLength: 20,
  })
  .map((parts) => parts.join(''));

const anyPlaces = fc.array(fc.nat(), { maxLength: 12 });

describe('LinePrefixer', () => {
  it.each([
    ['nothing', [], ''],
    ['one line', ['one\n'], '[a] one\n'],
    ['two lines in one piece', ['one\ntwo\n'], '[a] one\n[a] two\n'],
    ['a line in three pieces', ['o', 'n', 'e\n'], '[a] one\n'],
    ['a line feed on its own', ['one', '\n', 'two', '\n'], '[a] one\n[a] two\n'],
    ['empty lines', ['\n\none\n\n'], '[a] \n[a] \n[a] one\n[a] \n'],
    ['a last line without a line feed', ['one\ntwo'], '[a] one\n[a] two\n'],
    ['nothing but an unfinished line', ['one'], '[a] one\n'],
  ])('%s', (_, pieces, expected) => {
    expect(shown(pieces)).toBe(expected);
  });

  it('keeps a line back until it is whole', () => {
    const prefixer = new LinePrefixer('[a] ');
    expect(prefixer.push('half a')).toBe('');
    expect(prefixer.push(' line\nand')).toBe('[a] half a line\n');
    expect(prefixer.flush()).toBe('[a] and\n');
    expect(prefixer.flush(), 'what was shown is not shown again').toBe('');
  });

  it('shows the same whatever pieces the text comes in', () => {
    fc.assert(
      fc.property(anyText, anyPlaces, (text, places) => {
        expect(shown(cut(text, places))).toBe(shown([text]));
      }),
    );
  });

  it('takes nothing away and adds only prefixes, and a last line feed', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const lines = shown([text]).split('\n').slice(0, -1);
        for (const line of lines) expect(line.startsWith('[a] ')).toBe(true);
        const rest = lines.map((line) => line.slice('[a] '.length)).join('\n');
        expect(rest).toBe(text.endsWith('\n') ? text.slice(0, -1) : text);
      }),
    );
  });
});

describe('a line that is too long', () => {
  const long = 'x'.repeat(2.5 * LONGEST_LINE);

  it('is cut before it has ended, so that no process can fill our memory', () => {
    const prefixer = new LinePrefixer('[a] ');
    const early = prefixer.push(long);
    expect(early.split('\n').map((line) => line.length)).toEqual([LONGEST_LINE + 4, LONGEST_LINE + 4, 0]);
    expect(prefixer.flush().length).toBe(LONGEST_LINE / 2 + 5);
  });

  it('is cut at the same places whatever pieces it comes in, and whether or not its end comes along', () => {
    const lengths = fc.array(fc.integer({ min: 1, max: LONGEST_LINE }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(lengths, anyPlaces, fc.constantFrom('', '\n', '\nend'), (counts, places, end) => {
        const text = counts.map((count, index) => `${index}🪿`.repeat(count)).join('') + end;
        const output = shown([text]);
        // Compared as booleans: a difference of this size can't be read anyway.
        expect(shown(cut(text, places)) === output).toBe(true);
        expect(output.split('\n').every((line) => line.length <= LONGEST_LINE + 4)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('is never cut within a character', () => {
    const output = shown([`x${'🪿'.repeat(LONGEST_LINE)}`]);
    expect(Buffer.from(output, 'utf8').toString('utf8') === output, 'half a character is none in UTF-8').toBe(true);
    expect(output.replaceAll(/\[a\] |\n/g, '').length).toBe(1 + 2 * LONGEST_LINE);
  });
});

/** A terminal that keeps each write apart, and is as slow as it is told. */
class Terminal extends Writable {
  readonly writes: string[] = [];

  constructor() {
    super({ highWaterMark: 64, decodeStrings: true });
    this.setMaxListeners(0);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.writes.push(chunk.toString('utf8'));
    setImmediate(done);
  }
}

describe('PrefixStream', () => {
  it('never mixes the lines of processes that write at the same time, and keeps the order of each', async () => {
    const anyPeers = fc.array(fc.tuple(fc.array(anyText, { maxLength: 6 }), anyPlaces), { minLength: 2, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(anyPeers, async (peers) => {
        const terminal = new Terminal();
        const sources = peers.map(([texts, places], index) => {
          const source = new PassThrough();
          const prefixed = new PrefixStream(`[${index}] `);
          source.setEncoding('utf8').pipe(prefixed).pipe(terminal, { end: false });
          return { source, prefixed, bytes: Buffer.from(texts.join(''), 'utf8'), places };
        });
        await Promise.all(
          sources.map(async ({ source, prefixed, bytes, places }) => {
            // In bytes, so that characters are cut in two as well.
            let from = 0;
            for (const to of [...places.map((place) => place % (bytes.length + 1)), bytes.length].sort(
              (a, b) => a - b,
            )) {
              source.write(bytes.subarray(from, to));
              from = to;
              await new Promise((resolve) => setImmediate(resolve));
            }
            source.end();
            await finished(prefixed);
          }),
        );
        await new Promise<void>((resolve) => terminal.end(resolve));
        for (const write of terminal.writes) expect(write).toMatch(/^(\[\d\] [^\n]*\n)+$/);
        const lines = terminal.writes.join('').split('\n').slice(0, -1);
        for (const [index, { bytes }] of sources.entries()) {
          const own = lines.filter((line) => line.startsWith(`[${index}] `)).map((line) => `${line}\n`);
          expect(own.join('')).toBe(shown([bytes.toString('utf8')], `[${index}] `));
        }
      }),
      { numRuns: 40 },
    );
  });

  it('holds its process back while the terminal stands still', async () => {
    const source = new PassThrough({ encoding: 'utf8' });
    let release: () => void = () => {};
    let written = 0;
    const terminal = new Writable({
      highWaterMark: 1,
      write(_chunk, _encoding, done) {
        written++;
        release = done;
      },
    });
    const line = `${'x'.repeat(16 * 1024)}\n`;
    const end = pipeline(source, new PrefixStream('[a] '), terminal);
    let room = true;
    let offered = 0;
    while (room && offered < 100) {
      room = source.write(line);
      offered++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(room, 'a hundred lines do not fit between a process and a terminal that stands still').toBe(false);
    expect(written).toBe(1);
    source.end();
    while (!terminal.writableFinished) {
      release();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await end;
  });
});
