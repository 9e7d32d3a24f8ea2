// The API reference in Markdown, from the declarations that the build has made and their docstrings:
//
//     node scripts/build-api-docs.mjs [folder]      docs/api unless another one is named
//
// API Extractor reads the declarations (with a compiler of its own, as TypeScript 7 has no API), API Documenter writes pages. Both speak TSDoc;
// our docstrings say the same with fewer signs, so a copy of the declarations is put into TSDoc first. What can't be read is an error.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Extractor, ExtractorConfig } from '@microsoft/api-extractor';

const require = createRequire(import.meta.url);
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DECLARATIONS = join(ROOT, 'dist/src');

/** What users import → its declarations. */
const ENTRIES = {
  skein: 'index.d.ts',
  'skein/diloco': 'diloco/index.d.ts',
  'skein/notes': 'notes/index.d.ts',
  'skein/program': 'collectives/user-program.d.ts',
  'skein in a browser': 'browser/index.d.ts',
};

/** Names that the tools take for packages: with a slash they must have a scope. */
const scoped = (entry) => `@api/${entry.replaceAll(/\W+/g, '-')}`;

/** Of a house's docstring what TSDoc does without: nothing is said of release tags, and what is not exported is shown as it is. */
const UNSAID = ['ae-missing-release-tag', 'ae-forgotten-export', 'ae-internal-missing-underscore'];

/** Signs that mean something in TSDoc, outside of code. */
function escapeProse(text) {
  return text
    .split(/(`+[^`]*`+)/)
    .map((part, index) => (index % 2 === 1 ? part : part.replaceAll(/[{}<>]/g, '\\$&')))
    .join('');
}

/** One part of a docstring, that begins with its tag (the first one has none). */
function tsdocOf(part) {
  const [, tag = '', body = ''] = /^(?:@(\w+))?\s*([\s\S]*)$/.exec(part) ?? [];
  const text = body.trimEnd();
  switch (tag) {
    case '':
      return escapeProse(text);
    case 'default':
      return `Default: ${escapeProse(text)}.`.replace(/\.\.$/, '.');
    case 'param':
      return `@param ${escapeProse(text).replace(/^(\w+)\s+(?:- )?/, '$1 - ')}`;
    case 'example':
      return text.includes('```') ? `@example\n${text}` : `@example\n\`\`\`ts\n${text}\n\`\`\``;
    case 'internal':
      return `@internal`;
    default:
      return `@${tag} ${escapeProse(text)}`;
  }
}

function commentOf(comment) {
  const lines = comment
    .slice(3, -2)
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, ''));
  const parts = lines
    .join('\n')
    .trim()
    .split(/(?:^|\s)(?=@(?:default|param|returns|throws|example|internal)\b)/);
  // What has no tag of TSDoc's is part of the text, wherever it stands.
  const texts = parts.map(tsdocOf);
  const isText = (index) => !/^@/.test(texts[index]);
  const prose = texts.filter((_, index) => isText(index)).join('\n\n');
  const tags = texts.filter((_, index) => !isText(index));
  const body = [prose, ...tags].filter((one) => one !== '').join('\n\n');
  return `/**\n${body
    .split('\n')
    .map((line) => ` * ${line}`)
    .join('\n')}\n */`;
}

function copyInTsdoc(to) {
  for (const name of readdirSync(DECLARATIONS, { recursive: true })) {
    if (!name.endsWith('.d.ts')) continue;
    const text = readFileSync(join(DECLARATIONS, name), 'utf8');
    const target = join(to, name);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, text.replaceAll(/\/\*\*[\s\S]*?\*\//g, commentOf));
  }
}

function extract(entry, file, declarations, models) {
  const folder = mkdtempSync(join(declarations, 'package-'));
  const packageJsonFullPath = join(folder, 'package.json');
  writeFileSync(packageJsonFullPath, JSON.stringify({ name: scoped(entry), version: '0.0.0' }));
  const mainEntryPointFilePath = join(declarations, file);
  const config = ExtractorConfig.prepare({
    configObjectFullPath: undefined,
    packageJsonFullPath,
    configObject: {
      projectFolder: declarations,
      mainEntryPointFilePath,
      compiler: {
        overrideTsconfig: {
          compilerOptions: {
            target: 'ES2022',
            module: 'nodenext',
            lib: ['ES2022', 'ES2023.Array', 'ESNext.Disposable'],
            types: ['node'],
            strict: true,
            skipLibCheck: true,
            noEmit: true,
          },
          files: [mainEntryPointFilePath],
        },
      },
      apiReport: { enabled: false },
      docModel: { enabled: true, apiJsonFilePath: join(models, `${scoped(entry).split('/')[1]}.api.json`) },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: { extractorMessageReporting: { default: { logLevel: 'warning' } } },
    },
  });
  const faults = [];
  const result = Extractor.invoke(config, {
    localBuild: true,
    messageCallback(message) {
      message.handled = true;
      if (message.logLevel !== 'warning' && message.logLevel !== 'error') return;
      if (UNSAID.includes(message.messageId)) return;
      const where = `${message.sourceFilePath?.replace(declarations, 'dist/src') ?? entry}:${message.sourceFileLine ?? 0}`;
      faults.push(`${where}: ${message.messageId}: ${message.text}`);
    },
  });
  giveBackNames(config.apiJsonFilePath);
  if (!result.succeeded && faults.length === 0) faults.push(`${entry}: could not be read`);
  return faults;
}

/** An export that is called like a global type is given another name by API Extractor, though nobody writes it. */
function giveBackNames(path) {
  const text = readFileSync(path, 'utf8');
  const names = JSON.parse(text).members[0].members.map(({ name }) => name);
  const changed = names.filter((name) => /_2$/.test(name) && !names.includes(name.slice(0, -2)));
  writeFileSync(
    path,
    changed.reduce((rest, name) => rest.replaceAll(new RegExp(`\\b${name}\\b`, 'g'), name.slice(0, -2)), text),
  );
}

/** What the tools call the entries becomes what users write, wherever it is shown; files keep their names. */
function nameEntries(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    let text = readFileSync(path, 'utf8')
      .replaceAll('\r\n', '\n')
      .replaceAll(/^## (@api\/[\w-]+) package$/gm, '# $1');
    for (const entry of Object.keys(ENTRIES)) {
      const shown = scoped(entry).split('/')[1];
      text = text
        .replaceAll(new RegExp(`${scoped(entry)}(?![\\w-])`, 'g'), entry)
        .replaceAll(`[${shown}](`, `[${entry}](`);
    }
    writeFileSync(path, text);
  }
}

const output = resolve(process.argv[2] ?? join(ROOT, 'docs/api'));
if (!existsSync(join(DECLARATIONS, 'index.d.ts'))) throw new Error('There is nothing in dist/: npm run build');
// Within the package, where the declarations find the packages that they name.
const folder = mkdtempSync(join(ROOT, 'dist/api-'));
try {
  const models = join(folder, 'models');
  mkdirSync(models);
  copyInTsdoc(join(folder, 'declarations'));
  const faults = Object.entries(ENTRIES).flatMap(([entry, file]) =>
    extract(entry, file, join(folder, 'declarations'), models),
  );
  if (faults.length > 0) {
    console.error(faults.join('\n'));
    process.exitCode = 1;
  } else {
    const documenter = join(dirname(require.resolve('@microsoft/api-documenter/package.json')), 'bin/api-documenter');
    rmSync(output, { recursive: true, force: true });
    execFileSync(process.execPath, [documenter, 'markdown', '-i', models, '-o', output], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    nameEntries(output);
    // What was read, for whoever checks it.
    cpSync(models, join(output, 'models'), { recursive: true });
    console.log(`${readdirSync(output).length} pages in ${output}`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
