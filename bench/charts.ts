/** `npm run charts`: draws the charts of the README from the records in bench/results/, and measures nothing. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { drawCharts, type Records } from './harness/charts.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

function record<Name extends keyof Records>(name: Name): Records[Name] {
  return JSON.parse(readFileSync(join(ROOT, 'bench/results', `${name}.json`), 'utf8')) as Records[Name]; // written by bench/allreduce.ts
}

mkdirSync(join(ROOT, 'docs'), { recursive: true });
for (const { file, svg } of await drawCharts({ allreduce: record('allreduce'), scaling: record('scaling') })) {
  writeFileSync(join(ROOT, 'docs', file), svg);
  console.log(`docs/${file}`);
}
