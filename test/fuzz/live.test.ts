import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { PeerProcess } from '../harness/cluster.ts';
import { Random } from '../sim/random.ts';
import { Assault } from './assault.ts';
import { type Corpus, corpusToFuzz, TOKEN } from './corpus.ts';
import { Garrison } from './garrison.ts';
import { deceive, type ImpostorTally } from './impostor.ts';
import { CAN_LOOK, openSockets, until } from './processes.ts';
import { fuzzSeed } from './seed.ts';
import { siege, treason } from './siege.ts';

const DEADLINE_MS = 60_000;

const seed = fuzzSeed('live');
let corpus: Corpus;
const victims: PeerProcess[] = [];

beforeAll(async () => {
  corpus = await corpusToFuzz();
});

afterEach(async () => {
  await Promise.all(victims.splice(0).map((victim) => victim.kill()));
});

describe.runIf(CAN_LOOK)('good peers go on, exactly, and nothing grows', () => {
  test('while strangers and a peer that joined send damaged messages and frames to every port', async () => {
    await using garrison = await Garrison.start(TOKEN, DEADLINE_MS);
    const assault = new Assault(garrison, corpus);
    const report = await siege(garrison, assault, { seed, frames: 3_000, warmUp: 600 });
    console.log(`siege: ${report} ${JSON.stringify(assault.tally)}`);
    expect(assault.tally.connections).toBeGreaterThan(50);
    expect((await garrison.status()).runs).toBe(1);
  });

  test('after members who sent damaged messages and frames have gone', async () => {
    await using garrison = await Garrison.start(TOKEN, DEADLINE_MS);
    const assault = new Assault(garrison, corpus);
    const report = await treason(garrison, assault, { seed, waves: 8 });
    console.log(`treason: ${report} ${JSON.stringify(assault.tally)}`);
    expect(assault.tally.members).toBe(8);
    expect((await garrison.status()).members).toEqual(garrison.goodIds);
  });
});

test('a peer survives a coordinator that lies: whatever it calls ends', async () => {
  const victim = new PeerProcess(DEADLINE_MS);
  victims.push(victim);
  const tally: ImpostorTally = { sessions: 0, messages: 0 };
  const random = new Random(seed);
  await victim.run(() => undefined);
  const before = CAN_LOOK ? openSockets(victim.child.pid!) : 0;
  for (let session = 0; session < 25; session++) {
    await deceive(victim, corpus, random, tally).catch((error: unknown) => {
      throw new Error(`SKEIN_FUZZ_SEED=${seed}, session ${session}: ${error}`);
    });
  }
  expect(victim.alive).toBe(true);
  if (CAN_LOOK)
    await until(
      () => openSockets(victim.child.pid!),
      (open) => open <= before,
      'connections',
      10_000,
    );
  console.log(`impostor: ${JSON.stringify(tally)}`);
});
