/** Where the build puts what tests run in other processes. Tests themselves run from source, or from what was built. */
import { fileURLToPath } from 'node:url';

/** @param path of a source file, from the root of the repository */
export function built(path: string): string {
  const here = fileURLToPath(import.meta.url).replaceAll('\\', '/');
  const root = here.slice(0, here.lastIndexOf('/test/harness/')).replace(/\/dist$/, '');
  return `${root}/dist/${path.replace(/\.ts$/, '.js')}`;
}
