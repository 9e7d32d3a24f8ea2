/** Puts a name before each line of a process's output, so that lines of several processes can share a terminal. */
import { Transform, type TransformCallback } from 'node:stream';

/** A line longer than this is cut, so that a process that never ends its line can't fill our memory. */
export const LONGEST_LINE: number = 64 * 1024;

/** Of a line that goes on beyond it: never between the two halves of a character outside the basic plane. */
function lengthOfPiece(line: string, from: number): number {
  const last = line.charCodeAt(from + LONGEST_LINE - 1);
  const isFirstHalf = last >= 0xd800 && last <= 0xdbff;
  return isFirstHalf ? LONGEST_LINE - 1 : LONGEST_LINE;
}

/** Cuts text into whole lines, each with the prefix and a line feed; keeps what is not a whole line yet. */
export class LinePrefixer {
  readonly #prefix: string;
  #pending = '';

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** The lines that this text completes. */
  push(text: string): string {
    const lines = (this.#pending + text).split('\n');
    let output = '';
    for (const [index, line] of lines.entries()) {
      let from = 0;
      while (line.length - from > LONGEST_LINE) {
        const to = from + lengthOfPiece(line, from);
        output += `${this.#prefix}${line.slice(from, to)}\n`;
        from = to;
      }
      const rest = line.slice(from);
      if (index === lines.length - 1) this.#pending = rest;
      else output += `${this.#prefix}${rest}\n`;
    }
    return output;
  }

  /** A last line that had no line feed. */
  flush(): string {
    const rest = this.#pending;
    this.#pending = '';
    return rest === '' ? '' : `${this.#prefix}${rest}\n`;
  }
}

/** The same as a stream; back-pressure of the terminal reaches the process. Its source must be decoded (`setEncoding`). */
export class PrefixStream extends Transform {
  readonly #prefixer: LinePrefixer;

  constructor(prefix: string) {
    super({ decodeStrings: false, encoding: 'utf8' });
    this.#prefixer = new LinePrefixer(prefix);
  }

  override _transform(chunk: string, _encoding: BufferEncoding, done: TransformCallback): void {
    done(null, this.#prefixer.push(chunk));
  }

  override _flush(done: TransformCallback): void {
    done(null, this.#prefixer.flush());
  }
}
