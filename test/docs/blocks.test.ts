/**
 * Every code block of README, SECURITY, the guide and the pages beside it is tried. By its language, and by a comment before it that GitHub
 * does not show (`<!-- test: words -->`):
 *
 * `ts`, `js`     compiled against the built package, all in one project, and run as so many peers, whose coordinator takes the place of
 *                `127.0.0.1:7400` in the text (of `:7401` its HTTP port). All must end with 0.
 *                `peers=2`, `prelude=name` (declares what the text leaves to its reader), `file=train.js` (what it is saved as, beside what
 *                else the document has its reader save; alone, run by a shell block only), `until=/text/` (asked to end once it wrote
 *                that), `coordinator=none` (it starts its own, at a free port), `then="text"` (what is added at its end),
 *                `types-only="why"`. With `prelude=group` it is one call or a few; two members make all of these.
 * `sh`           `run`: run in the folder of those files, `until=/text/` as above, `needs=openssl`. `check="why it can't be run"`: see `shell.ts`. One of the two.
 * `text`         `output`: each line was written by the block before it, with anything for `…`. Else it is a picture.
 * `yaml`, `json` parsed
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import PQueue from 'p-queue';
import { Coordinator } from 'skein';
import { afterAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { requireOpenssl } from '../harness/requirements.ts';
import { DOCUMENTS, ROOT, read } from './documents.ts';
import { type Block, blocksOf, headingsOf, linksOf } from './markdown.ts';
import {
  type Ended,
  installBinaries,
  plainEnvironment,
  portsToUse,
  runProgram,
  SHOWN_PORTS,
  withPorts,
} from './programs.ts';
import { CommandCheck } from './shell.ts';
import { Workshop } from './workshop.ts';

const WORDS: Readonly<Record<string, readonly string[]>> = {
  ts: ['peers', 'prelude', 'file', 'until', 'coordinator', 'then', 'types-only'],
  js: ['peers', 'prelude', 'file', 'until', 'coordinator', 'then', 'types-only'],
  sh: ['run', 'check', 'until', 'needs'],
  text: ['output'],
  yaml: [],
  json: [],
};

/** The machine has two cores, and most of what runs waits. */
const AT_ONCE = 3;
/** Of one block: most of it is waiting for its turn (ms). */
const PATIENCE_MS = 200_000;

const blocks = DOCUMENTS.flatMap((document) => blocksOf(document, read(document)));
const workshop = new Workshop();
const programs = new Map<Block, string>();
for (const block of blocks)
  if (block.language === 'ts' || block.language === 'js') programs.set(block, workshop.add(block));
const wrong = workshop.build();
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

const binaries = installBinaries(join(workshop.path, 'bin'));
const queue = new PQueue({ concurrency: AT_ONCE });
const commands = new CommandCheck();
/** Programs that readers are told to write: a later page may start one of an earlier one. */
const written = blocks.flatMap(({ words }) => words.get('file') ?? []);
afterAll(() => workshop[Symbol.dispose]());

type Trial =
  | 'compiled and run'
  | 'compiled, run by a shell block'
  | 'compiled only'
  | 'run'
  | 'checked'
  | 'output'
  | 'parsed'
  | 'picture';

function trialOf({ language, words }: Block): Trial {
  switch (language) {
    case 'ts':
    case 'js':
      if (words.has('types-only')) return 'compiled only';
      return words.has('file') && !words.has('peers') ? 'compiled, run by a shell block' : 'compiled and run';
    case 'sh':
      return words.has('run') ? 'run' : 'checked';
    case 'text':
      return words.has('output') ? 'output' : 'picture';
    default:
      return 'parsed';
  }
}

/** Outputs are those of the block before, in the same document. */
function outputsOf(block: Block): Block[] {
  const rest = blocks.slice(blocks.indexOf(block) + 1);
  const end = rest.findIndex((one) => one.document !== block.document || trialOf(one) !== 'output');
  return end < 0 ? rest : rest.slice(0, end);
}

function pattern(line: string): RegExp {
  return new RegExp(
    line
      .trim()
      .split('…')
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*'),
  );
}

function compare(block: Block, output: string): void {
  for (const shown of outputsOf(block))
    for (const line of shown.text.split('\n').filter((one) => one.trim() !== '' && one.trim() !== '…'))
      expect(output, `${shown.document}:${shown.line}`).toMatch(pattern(line));
}

function untilOf({ words }: Block): { readonly until?: RegExp } {
  const text = words.get('until');
  return text === undefined ? {} : { until: new RegExp(text.replace(/^\/|\/$/g, '')) };
}

interface Setting {
  readonly until?: RegExp;
  /** It starts a coordinator of its own. */
  readonly isServer?: boolean;
}

async function runAsPeers(peers: number, program: string, { until, isServer = false }: Setting): Promise<Ended[]> {
  const coordinator = isServer ? null : await Coordinator.listen({ port: 0, http: { port: 0 } });
  try {
    const portOf = (address: string | null) => Number(new URL(address ?? '').port);
    const ports =
      coordinator === null
        ? await portsToUse()
        : { control: portOf(coordinator.address), http: portOf(coordinator.httpAddress) };
    writeFileSync(program, withPorts(readFileSync(program, 'utf8'), SHOWN_PORTS, ports));
    const environment = {
      ...plainEnvironment(),
      SKEIN_COORDINATOR: coordinator?.address,
      SKEIN_WORLD_SIZE: String(peers),
    };
    const started = Array.from({ length: peers }, (_, index) =>
      runProgram([process.execPath, program], {
        cwd: dirname(program),
        environment: { ...environment, SKEIN_LOCAL_RANK: String(index) },
        ...(until === undefined ? {} : { until }),
      }),
    );
    return await Promise.all(started);
  } finally {
    await coordinator?.close();
  }
}

async function runInShell(block: Block): Promise<void> {
  const ports = await portsToUse();
  const script = withPorts(block.text, SHOWN_PORTS, ports);
  const environment = {
    ...plainEnvironment(),
    PATH: `${binaries}:${process.env['PATH']}`,
    DOCS_PORT: String(ports.control),
    DOCS_HTTP_PORT: String(ports.http),
  };
  const { code, output } = await runProgram(['/bin/bash', '--norc', '-euo', 'pipefail', '-c', script], {
    cwd: workshop.folder(block.document),
    environment,
    ...untilOf(block),
  });
  // Whoever is asked to end may do so in good order.
  expect(block.words.has('until') ? [0, 'SIGTERM'] : [0], output).toContain(code);
  compare(block, withPorts(output, ports, SHOWN_PORTS));
}

/** Examples of single calls need a group, and nothing else: one pair of processes makes them all, one after the other. */
const calls = [...programs].filter(([{ words }]) => words.get('prelude') === 'group');

const mark = (block: Block): string => `@@ ${block.document}:${block.line}\n`;

/** Runs them. @returns what each of the two wrote */
const callsMade = once(async () => {
  const steps = calls.map(([block, program]) => [mark(block).trim(), program]);
  const runner = workshop.write(
    'calls.mjs',
    `import { gradients, group } from './preludes/group.js';
for (const [title, program] of ${JSON.stringify(steps)}) {
  gradients.fill(group.rank + 1);
  console.log(title);
  await import(program);
}
await group.leave();
console.log('@@ end');
`,
  );
  return runAsPeers(2, runner, {});
});

async function tryCall(block: Block): Promise<void> {
  for (const { output } of await callsMade()) {
    const [, rest] = output.split(mark(block));
    expect(rest, `it came to this: ${output}`).toBeDefined();
    // Whoever ends before the next one has failed here.
    expect(rest).toContain('@@ ');
    compare(block, rest!.split('@@ ', 1)[0]!);
  }
}

async function tryBlock(block: Block): Promise<void> {
  const { language, words, text, document } = block;
  const trial = trialOf(block);
  switch (trial) {
    case 'compiled and run': {
      if (words.get('prelude') === 'group') return tryCall(block);
      const peers = Number(words.get('peers') ?? 1);
      const isServer = words.get('coordinator') === 'none';
      const ended = await runAsPeers(peers, programs.get(block)!, { ...untilOf(block), isServer });
      for (const { code, output } of ended) expect(code, output).toBe(0);
      compare(block, ended.map(({ output }) => output).join('\n'));
      break;
    }
    case 'run':
      await runInShell(block);
      break;
    case 'checked':
      expect(words.get('check'), 'a shell block is run, or says why it is not').toBeTruthy();
      expect(await commands.check(text, written)).toEqual([]);
      break;
    case 'compiled only':
      expect(words.get('types-only')).not.toBe('');
      break;
    case 'compiled, run by a shell block': {
      const name = words.get('file')!;
      const runs = blocks.filter(
        (one) => one.document === document && one.language === 'sh' && one.text.includes(name),
      );
      expect(runs.length, `a shell block runs ${name}`).toBeGreaterThan(0);
      break;
    }
    case 'parsed':
      if (language === 'json') JSON.parse(text);
      else expect(parseAllDocuments(text).flatMap((one) => one.errors)).toEqual([]);
      break;
    case 'output':
    case 'picture':
      break; // an output is compared by the block that it is of
    default:
      trial satisfies never;
  }
}

describe('code blocks', () => {
  it('compile', () => {
    expect(wrong).toEqual([]);
  });

  it('are of known languages, and their annotations have known words', () => {
    const unknown = blocks.flatMap(({ document, line, language, words }) =>
      [...words.keys()]
        .filter((word) => WORDS[language]?.includes(word) !== true)
        .concat(WORDS[language] === undefined ? [`the language ${language}`] : [])
        .map((word) => `${document}:${line}: ${word}`),
    );
    expect(unknown).toEqual([]);
  });

  it('are counted', () => {
    const counts = new Map<Trial, number>();
    for (const block of blocks) counts.set(trialOf(block), (counts.get(trialOf(block)) ?? 0) + 1);
    console.log(`code blocks: ${[...counts].map(([trial, count]) => `${count} ${trial}`).join(', ')}`);
    expect(blocks.length).toBeGreaterThan(0);
  });

  const tried = blocks.filter((block) => !['output', 'picture'].includes(trialOf(block)));
  it.concurrent.for(tried.map((block) => [`${block.document}:${block.line}`, block] as const))(
    '%s',
    { timeout: PATIENCE_MS },
    ([, block], context) => {
      if (block.words.get('needs') === 'openssl') requireOpenssl(context);
      return queue.add(() => tryBlock(block));
    },
  );
});

describe.each(DOCUMENTS)('%s', (document) => {
  it('links only to files and headings that exist', () => {
    const dead = linksOf(read(document)).filter((link) => {
      if (/^\w+:/.test(link)) return false;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? document : posix.join(posix.dirname(document), path);
      if (!existsSync(join(ROOT, target))) return true;
      return anchor !== undefined && !headingsOf(read(target)).some((one) => one.anchor === anchor);
    });
    expect(dead).toEqual([]);
  });

  it('names only scripts that package.json has', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...read(document).matchAll(/\bnpm run ([\w:-]+)/g)].map((match) => match[1]!);
    expect(named.filter((script) => scripts[script] === undefined)).toEqual([]);
  });
});
