/** The documents for users, from the root of the repository. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ROOT: string = fileURLToPath(new URL('../../', import.meta.url));

const guide = readdirSync(`${ROOT}docs/guide`)
  .filter((name) => name.endsWith('.md'))
  .sort();

export const DOCUMENTS: readonly string[] = [
  'README.md',
  'SECURITY.md',
  'deploy/kubernetes/README.md',
  'docs/troubleshooting.md',
  ...guide.map((name) => `docs/guide/${name}`),
];

export function read(path: string): string {
  return readFileSync(`${ROOT}${path}`, 'utf8');
}
