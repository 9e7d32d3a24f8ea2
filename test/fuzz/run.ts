/** `npm run fuzz -- --frames 1000000`: the fuzzers from the command line, for as long as one likes. */
import { Command } from 'commander';
import pc from 'picocolors';
import { PeerProcess } from '../harness/cluster.ts';
import { Random } from '../sim/random.ts';
import { Assault } from './assault.ts';
import { controlRound, controlSources } from './control-rounds.ts';
import { type Corpus, corpusToFuzz, keepCorpus, TOKEN } from './corpus.ts';
import { dataRound } from './data-rounds.ts';
import { Garrison } from './garrison.ts';
import { deceive } from './impostor.ts';
import { fuzzSeed, round } from './seed.ts';
import { siege, treason } from './siege.ts';
import { smallMemory } from './workload.ts';

/** What share of the frames goes where; the rest is for members and for a coordinator that lies. */
const DATA_SHARE = 0.4;
const CONTROL_SHARE = 0.3;
const SIEGE_SHARE = 0.27;

/** What a hostile member, and a coordinator that lies, sends on average. */
const PER_MEMBER = 110;
const PER_SESSION = 12;

/** No process of a long run lives longer than this per frame (ms), nor than the first of these in any case. */
const DEADLINE_MS = 120_000;
const DEADLINE_PER_FRAME_MS = 10;

/** Lines of progress per part. */
const LINES = 10;

/** What the parsers may keep from a tenth of their run on (bytes). */
const PARSER_GROWTH_BYTES = 128 * 1024 * 1024;

function progress(part: string, total: number): (sent: number) => void {
  const startedAt = performance.now();
  let told = 0;
  return (sent) => {
    if (sent < (total * (told + 1)) / LINES) return;
    told = Math.floor((sent * LINES) / total);
    const seconds = (performance.now() - startedAt) / 1_000;
    console.log(`${part}: ${sent} of ${total}, ${Math.round(sent / seconds)} per second`);
  };
}

async function fuzzData(corpus: Corpus, seed: number, frames: number): Promise<number> {
  const { workspace } = await smallMemory();
  const tally = { frames: 0, refused: 0, held: 0 };
  const tell = progress('data frames into a parser', frames);
  const checkGrowth = growth(frames);
  for (let number = 0; tally.frames < frames; number++) {
    round(seed, number, corpus, (random) => dataRound(corpus, workspace, random, tally));
    tell(tally.frames);
    checkGrowth(tally.frames);
  }
  console.log(pc.green(`data frames into a parser: ${JSON.stringify(tally)}`));
  return tally.frames;
}

function fuzzControl(corpus: Corpus, seed: number, messages: number): number {
  const sources = controlSources(corpus);
  const tally = { messages: 0, refused: 0, taken: 0 };
  const tell = progress('control messages into a parser', messages);
  const checkGrowth = growth(messages);
  for (let number = 0; tally.messages < messages; number++) {
    round(seed, number, corpus, (random) => controlRound(sources, random, tally));
    tell(tally.messages);
    checkGrowth(tally.messages);
  }
  console.log(pc.green(`control messages into a parser: ${JSON.stringify(tally)}`));
  return tally.messages;
}

/** Throws when this process has grown too much since a tenth was done. */
function growth(total: number): (sent: number) => void {
  let warm: number | null = null;
  return (sent) => {
    if (sent < total / 10) return;
    const bytes = process.memoryUsage().rss;
    warm ??= bytes;
    if (bytes > warm + PARSER_GROWTH_BYTES) throw new Error(`the parsers grew from ${warm} to ${bytes} bytes`);
  };
}

async function fuzzLive(corpus: Corpus, seed: number, frames: number, members: number): Promise<number> {
  await using garrison = await Garrison.start(TOKEN, DEADLINE_MS + DEADLINE_PER_FRAME_MS * frames);
  const assault = new Assault(garrison, corpus);
  const onProgress = progress('against live processes', frames);
  const report = await siege(garrison, assault, { seed, frames, warmUp: frames / 5, onProgress });
  console.log(pc.green(`against live processes: ${report} ${JSON.stringify(assault.tally)}`));
  const before = assault.sent;
  const waves = Math.max(4, Math.round(members / PER_MEMBER));
  const tell = progress('from members', waves * PER_MEMBER);
  const inside = await treason(garrison, assault, { seed, waves, onProgress: (sent) => tell(sent - before) });
  console.log(pc.green(`from members: ${inside} ${JSON.stringify(assault.tally)}`));
  return assault.sent;
}

async function fuzzVictim(corpus: Corpus, seed: number, messages: number): Promise<number> {
  const victim = new PeerProcess(DEADLINE_MS + 10 * DEADLINE_PER_FRAME_MS * messages);
  const tally = { sessions: 0, messages: 0 };
  const random = new Random(seed);
  const tell = progress('from a coordinator that lies', messages);
  try {
    while (tally.messages < messages) {
      await deceive(victim, corpus, random, tally);
      tell(tally.messages);
    }
  } finally {
    await victim.kill();
  }
  console.log(pc.green(`from a coordinator that lies: ${JSON.stringify(tally)}`));
  return tally.messages;
}

interface Options {
  readonly frames: string;
  readonly seed?: string;
}

async function main(options: Options): Promise<number> {
  if (options.seed !== undefined) process.env['SKEIN_FUZZ_SEED'] = options.seed;
  const seed = fuzzSeed('fuzz');
  const frames = Number(options.frames);
  const corpus = await corpusToFuzz();
  const rest = frames * (1 - DATA_SHARE - CONTROL_SHARE - SIEGE_SHARE);
  const startedAt = performance.now();
  try {
    let sent = await fuzzData(corpus, seed, frames * DATA_SHARE);
    sent += fuzzControl(corpus, seed, frames * CONTROL_SHARE);
    sent += await fuzzLive(corpus, seed, frames * SIEGE_SHARE, rest / 2);
    sent += await fuzzVictim(corpus, seed, Math.max(PER_SESSION, frames - sent));
    const seconds = Math.round((performance.now() - startedAt) / 1_000);
    console.log(pc.green(`${sent} frames and messages in ${seconds} s, seed ${seed}: nothing broke`));
    return 0;
  } catch (error) {
    console.error(pc.red(error instanceof Error ? (error.stack ?? error.message) : String(error)));
    console.error(`${keepCorpus(corpus, seed)} npm run fuzz -- --frames ${frames} --seed ${seed}`);
    return 1;
  }
}

const program = new Command('fuzz')
  .description('Sends damaged recorded traffic to the parsers, and to live processes that must go on.')
  .option('--frames <n>', 'how many frames and messages, of all kinds together', '1000000')
  .option('--seed <seed>', 'decides every choice; a failure tells it, with the file of the bytes that were damaged');
program.parse();
process.exitCode = await main(program.opts());
