/**
 * Shell commands that can't be run here (they need a second machine, a cluster, ten minutes) are run all the same by bash, but in a
 * place where each program only writes down how it was called. So bash itself judges the syntax, and expands what is to be
 * expanded; then each call is checked: options parse, scripts and files exist.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { ROOT } from './documents.ts';

interface Call {
  readonly program: string;
  readonly args: readonly string[];
  /** Variables of ours that it was given. */
  readonly variables: Readonly<Record<string, string>>;
}

/** Programs that documents may name. Each writes how it was called as fields that end with a NUL, their number first. */
const PROGRAMS = ['npm', 'npx', 'skein', 'node', 'curl', 'openssl', 'kubectl', 'etcdctl', 'bash', 'sleep'];
const RECORDER = `#!/bin/bash
variables=()
for name in "\${!SKEIN_@}"; do variables+=("$name=\${!name}"); done
printf '%s\\0' "$((2 + $# + \${#variables[@]}))" "\${0##*/}" "$#" "$@" "\${variables[@]}" >> "$RECORD"
case "\${0##*/}" in openssl) echo 0123456789abcdef;; npx|skein) echo skein1.example;; esac
`;

function parseRecord(text: string): Call[] {
  const fields = text.split('\0');
  const calls: Call[] = [];
  for (let at = 0; at + 1 < fields.length; ) {
    const count = Number(fields[at]);
    const [program, given, ...rest] = fields.slice(at + 1, at + 1 + count);
    const args = rest.slice(0, Number(given));
    const variables = Object.fromEntries(rest.slice(args.length).map((one) => one.split(/=(.*)/s) as [string, string]));
    calls.push({ program: program!, args, variables });
    at += 1 + count;
  }
  return calls;
}

/** @throws Error when bash finds fault with it, as where a program is called that documents may not name */
function callsOf(script: string): Call[] {
  const folder = mkdtempSync(join(tmpdir(), 'skein-docs-'));
  try {
    for (const name of PROGRAMS) {
      writeFileSync(join(folder, name), RECORDER);
      chmodSync(join(folder, name), 0o755);
    }
    const record = join(folder, 'record');
    writeFileSync(record, '');
    const { status, stderr } = spawnSync('/bin/bash', ['--norc', '-euo', 'pipefail', '-c', `${script}\nwait`], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: folder,
      encoding: 'utf8',
      env: { PATH: folder, RECORD: record, SKEIN_TOKEN: '0123456789abcdef' },
      timeout: 20_000,
    });
    if (status !== 0 || stderr !== '') throw new Error(`bash ended with ${status}: ${stderr}`);
    return parseRecord(readFileSync(record, 'utf8'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const { scripts } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')) as { scripts: Record<string, string> };

function sourceText(): string {
  return readdirSync(`${ROOT}src`, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => readFileSync(`${ROOT}src/${path}`, 'utf8'))
    .join('\n');
}

/** The whole command line, every action of which does nothing. */
async function quietSkein(): Promise<Command> {
  const skein = new Command('skein').enablePositionalOptions();
  for (const file of readdirSync(`${ROOT}src/cli`).filter((name) => name !== 'main.ts')) {
    const module = (await import(join(ROOT, 'src/cli', file))) as Record<string, unknown>;
    for (const [name, make] of Object.entries(module))
      if (name.endsWith('Command') && typeof make === 'function') skein.addCommand(make() as Command);
  }
  for (const command of [skein, ...skein.commands])
    command.exitOverride().configureOutput({ writeOut: () => {}, writeErr: () => {} });
  for (const command of skein.commands) command.action(() => {});
  return skein;
}

export class CommandCheck {
  readonly #source: string = sourceText();

  /**
   * Runs a block so, and checks each call of it.
   *
   * @param files that the document has its reader write
   * @returns what is wrong
   */
  async check(script: string, files: readonly string[]): Promise<string[]> {
    const calls = callsOf(script);
    if (calls.length === 0) return ['it calls nothing'];
    const wrong: string[] = [];
    for (const call of calls) wrong.push(...(await this.#check(call, files)));
    return wrong;
  }

  async #check({ program, args, variables }: Call, files: readonly string[]): Promise<string[]> {
    const unknown = Object.keys(variables).filter((name) => !this.#source.includes(name));
    return [
      ...unknown.map((name) => `nothing reads ${name}`),
      ...(await this.#checkCommand(program, args, variables, files)),
    ].map((reason) => `${program} ${args.join(' ')}: ${reason}`);
  }

  #checkCommand(
    program: string,
    args: readonly string[],
    variables: Call['variables'],
    files: readonly string[],
  ): Promise<string[]> | string[] {
    const isThere = (path: string) => files.includes(path) || existsSync(join(ROOT, path));
    const [first = '', second = ''] = args;
    switch (program) {
      case 'npm':
        if (['ci', 'install'].includes(first)) return [];
        return scripts[first === 'run' ? second : first] === undefined ? ['package.json has no such script'] : [];
      case 'npx':
        return first === 'skein' ? this.#checkSkein(args.slice(1), variables, files) : ['npx is for skein here'];
      case 'skein':
        return this.#checkSkein(args, variables, files);
      case 'node':
      case 'bash': {
        const path = first.replace(/^dist\/((?:test|bench|examples|src)\/.*)\.js$/, '$1.ts');
        return isThere(path) ? [] : ['there is no such file'];
      }
      case 'kubectl': {
        const named = args.flatMap((word, index) => (word === '-f' ? [args[index + 1] ?? ''] : []));
        return named
          .filter((path) => !existsSync(join(ROOT, 'deploy/kubernetes', path)) && !isThere(path))
          .map((path) => `there is no ${path}`);
      }
      case 'curl': {
        const url = args.find((word) => /^https?:/.test(word));
        const path = url === undefined ? '' : new URL(url).pathname;
        return path !== '' && this.#source.includes(`'${path}'`) ? [] : [`nothing serves ${path}`];
      }
      default:
        return [];
    }
  }

  async #checkSkein(
    args: readonly string[],
    variables: Call['variables'],
    files: readonly string[],
  ): Promise<string[]> {
    const kept = { ...process.env };
    try {
      Object.assign(process.env, variables);
      const skein = await quietSkein();
      await skein.parseAsync([...args], { from: 'user' });
    } catch (error) {
      if (!(error instanceof CommanderError) || error.exitCode !== 0)
        return [error instanceof Error ? error.message : String(error)];
    } finally {
      for (const name of Object.keys(variables)) delete process.env[name];
      Object.assign(process.env, kept);
    }
    const rest = args.indexOf('--');
    if (rest < 0) return [];
    const [program = '', ...after] = args.slice(rest + 1);
    return this.#checkCommand(program, after, variables, files);
  }
}
