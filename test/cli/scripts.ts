/** Small training scripts on disk, as users write them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The built package: scripts in a temporary folder can't import it by its name. */
const PACKAGE = new URL('../../dist/src/index.js', import.meta.url).href;

/** Beyond what any test waits for, in case even the test can't clean up any more (ms). */
const SCRIPT_DEADLINE_MS = 60_000;

const PREAMBLE = `
import { join } from '${PACKAGE}';
const index = Number(process.env.SKEIN_LOCAL_RANK);
const restarts = Number(process.env.SKEIN_RESTARTS);
setTimeout(() => process.exit(99), ${SCRIPT_DEADLINE_MS}).unref();
const stayAlive = () => setInterval(() => {}, 1_000);
`;

export class ScriptFolder {
  readonly #path: string = mkdtempSync(join(tmpdir(), 'skein-cli-'));
  #count = 0;

  /** Writes a script; returns where it is. It knows `join`, its `index`, its `restarts`, and how to `stayAlive()`. */
  write(body: string): string {
    const path = join(this.#path, `script-${this.#count++}.mjs`);
    writeFileSync(path, PREAMBLE + body);
    return path;
  }

  remove(): void {
    rmSync(this.#path, { recursive: true, force: true });
  }
}
