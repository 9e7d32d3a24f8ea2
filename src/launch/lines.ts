/** Puts a name before each line of a process's output, so that lines of several processes can share a terminal. */
import { Transform, type TransformCallback } from 'node:stream';

/** A line longer than this is cut, so that a process that never ends its line can't fill our memory. */
export const LONGEST_LINE: number = 64 * 1024;

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
    let pending = lines.pop() ?? '';
    let output = '';
    for (const line of lines) output += `${this.#prefix}${line}\n`;
    while (pending.length > LONGEST_LINE) {
      output += `${this.#prefix}${pending.slice(0, LONGEST_LINE)}\n`;
      pending = pending.slice(LONGEST_LINE);
    }
    this.#pending = pending;
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
