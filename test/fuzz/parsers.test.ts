import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { COORDINATOR_MESSAGES } from '../../src/wire/coordinator-messages.ts';
import { DIAL_MESSAGES } from '../../src/wire/dial-messages.ts';
import { MAX_CONTROL_BYTES } from '../../src/wire/limits.ts';
import { ControlReader } from '../../src/wire/messages.ts';
import { PEER_MESSAGES } from '../../src/wire/peer-messages.ts';
import { LonePeer } from '../collectives/lone.ts';
import { pieceLengths, pushInPieces } from '../wire/cut.ts';
import { type ControlTally, controlRound, controlSources } from './control-rounds.ts';
import { type Corpus, corpusToFuzz } from './corpus.ts';
import { type DataTally, dataRound, undamagedRound } from './data-rounds.ts';
import { fuzzSeed, round } from './seed.ts';
import { smallMemory, WORKLOAD } from './workload.ts';

const DATA_ROUNDS = 150;
const CONTROL_ROUNDS = 4_000;

const seed = fuzzSeed('parsers');
const { workspace } = await smallMemory();
let corpus: Corpus;

beforeAll(async () => {
  corpus = await corpusToFuzz();
});

describe('the corpus', () => {
  test('has both directions of control, and of data', () => {
    const types = (said: readonly { readonly message: { readonly type: string } }[]) =>
      [...new Set(said.map(({ message }) => message.type))].sort();
    expect(types(corpus.toCoordinator)).toEqual(
      expect.arrayContaining(['boundary', 'done', 'hello', 'leave', 'link-closed', 'progress', 'prove', 'ready']),
    );
    expect(types(corpus.fromCoordinator)).toEqual(
      expect.arrayContaining(['admitted', 'boundary', 'challenge', 'commit', 'decide', 'introduce', 'loss', 'welcome']),
    );
    expect(types(corpus.handshakes)).toEqual(['dial', 'dial-accept', 'dial-prove']);
    expect(corpus.data.filter(({ frames }) => frames.length > 5).length).toBeGreaterThanOrEqual(6);
  });

  test('makes a lone member hold every result, as long as nothing is done to it', () => {
    for (const { peerId } of corpus.view.members) {
      const done = new Set(undamagedRound(corpus, workspace, peerId));
      const wanted = WORKLOAD.filter(({ spec }) => spec.consistency === 'commit').map(({ spec }) => `1:${spec.tag}:0`);
      expect([...done].sort()).toEqual(wanted.sort());
    }
  });
});

describe('damaged data frames', () => {
  test('never throw, never touch memory that is not theirs, and leave nothing behind', () => {
    const tally: DataTally = { frames: 0, refused: 0, held: 0 };
    for (let number = 0; number < DATA_ROUNDS; number++) {
      round(seed, number, corpus, (random) => dataRound(corpus, workspace, random, tally));
    }
    console.log(`data: ${JSON.stringify(tally)}`);
    expect(tally.refused).toBeGreaterThan(DATA_ROUNDS / 10);
    expect(tally.held).toBeGreaterThan(DATA_ROUNDS / 10);
  });

  test('and random bytes are refused by their first header', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 40, maxLength: 300 }), pieceLengths, (bytes, lengths) => {
        const peer = new LonePeer('a', workspace);
        const connection = peer.connection('b');
        bytes[0] = bytes[0]! & 0x7f & ~0x5e; // not a frame's first byte
        expect(pushInPieces(bytes, lengths, (piece) => connection.push(piece))).toBe(
          'these bytes are not a Skein frame',
        );
      }),
      { seed },
    );
  });
});

describe('damaged control messages', () => {
  test('are refused in a short text or are valid messages, which no machine stumbles over', () => {
    const sources = controlSources(corpus);
    const tally: ControlTally = { messages: 0, refused: 0, taken: 0 };
    for (let number = 0; number < CONTROL_ROUNDS; number++) {
      round(seed, number, corpus, (random) => controlRound(sources, random, tally));
    }
    console.log(`control: ${JSON.stringify(tally)}`);
    expect(tally.refused).toBeGreaterThan(CONTROL_ROUNDS / 4);
    expect(tally.taken).toBeGreaterThan(CONTROL_ROUNDS / 10);
  });

  test('and random bytes never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), pieceLengths, (bytes, lengths) => {
        for (const schema of [PEER_MESSAGES, COORDINATOR_MESSAGES, DIAL_MESSAGES] as const) {
          const reader = new ControlReader<unknown>(schema, MAX_CONTROL_BYTES);
          pushInPieces(bytes, lengths, (piece) => reader.push(piece, () => true));
        }
      }),
      { seed, numRuns: 500 },
    );
  });
});
