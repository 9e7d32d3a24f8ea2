/**
 * Real traffic to be damaged: a small run on loopback, recorded when it is needed, so that it never is of another version
 * than the code. Three peers join through relays, make all calls of the workload, pass a boundary, and lose one of them.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { CoordinatorServer } from '../../src/engine/coordinator-server.ts';
import { type Platform, systemPlatform } from '../../src/engine/platform.ts';
import { resolveSecurity } from '../../src/engine/resolve-security.ts';
import { Runtime } from '../../src/engine/runtime.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';
import type { Address } from '../../src/transport/transport.ts';
import type { ControlSchema } from '../../src/wire/control-schema.ts';
import { COORDINATOR_MESSAGES, type CoordinatorMessage } from '../../src/wire/coordinator-messages.ts';
import { DIAL_MESSAGES, type DialMessage } from '../../src/wire/dial-messages.ts';
import { emptyHeader, HEADER_BYTES, readHeader } from '../../src/wire/frame.ts';
import { MAX_CONTROL_BYTES } from '../../src/wire/limits.ts';
import { CONTROL_HEADER_BYTES, ControlReader } from '../../src/wire/messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import { PEER_MESSAGES, type PeerMessage } from '../../src/wire/peer-messages.ts';
import { type Recording, Relay } from './relay.ts';
import { smallMemory, WORKLOAD, WORLD_SIZE } from './workload.ts';

export const TOKEN = 'a token of the fuzzers';

/** A message as it was on the wire, and what it says. */
export interface Said<M> {
  readonly bytes: Uint8Array;
  readonly message: M;
}

/** Frames of one connection, in their order. */
export interface DataStream {
  readonly from: string;
  readonly to: string;
  readonly frames: readonly Uint8Array[];
}

export interface Corpus {
  readonly toCoordinator: readonly Said<PeerMessage>[];
  readonly fromCoordinator: readonly Said<CoordinatorMessage>[];
  readonly handshakes: readonly Said<DialMessage>[];
  readonly data: readonly DataStream[];
  /** The first view. */
  readonly view: WireView;
}

/** All messages at the start of a stream, up to `most`; and what comes after them. */
function messagesOf<M>(
  schema: ControlSchema<M>,
  stream: Uint8Array,
  most: number,
): { readonly said: readonly Said<M>[]; readonly rest: Uint8Array } {
  const reader = new ControlReader(schema, MAX_CONTROL_BYTES);
  const said: Said<M>[] = [];
  let at = 0;
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  const error = reader.push(stream, ({ message }) => {
    const end = at + CONTROL_HEADER_BYTES + view.getUint32(at, true);
    said.push({ bytes: stream.slice(at, end), message });
    at = end;
    return said.length < most;
  });
  if (error !== null) throw new Error(`what was recorded is not what it should be: ${error}`);
  return { said, rest: stream.slice(at) };
}

function framesOf(stream: Uint8Array): readonly Uint8Array[] {
  const frames: Uint8Array[] = [];
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  const header = emptyHeader();
  // The last frame may have been cut when the connection was.
  for (let at = 0; at + HEADER_BYTES <= stream.length; ) {
    const error = readHeader(view, at, header);
    if (error !== null) throw new Error(`what was recorded is not what it should be: ${error}`);
    frames.push(stream.slice(at, at + HEADER_BYTES + header.length));
    at += HEADER_BYTES + header.length;
  }
  return frames;
}

function readData({ dialler, listener }: Recording): { stream: DataStream; handshake: readonly Said<DialMessage>[] } {
  const dialled = messagesOf(DIAL_MESSAGES, dialler, 2);
  const accepted = messagesOf(DIAL_MESSAGES, listener, 1);
  const greeting = dialled.said[0]?.message;
  if (greeting?.type !== 'dial') throw new Error('a data connection begins with a dial');
  // Who dials receives.
  return {
    stream: { from: greeting.to, to: greeting.from, frames: framesOf(accepted.rest) },
    handshake: [...dialled.said, ...accepted.said],
  };
}

/** A platform whose data listeners can only be reached through relays. */
function relayed(relays: Relay[]): Platform {
  return {
    ...systemPlatform,
    memory: smallMemory,
    listen: async (kinds, coordinator, door) => {
      const listeners = await systemPlatform.listen(kinds, coordinator, door);
      const addresses: Address[] = [];
      for (const address of listeners.addresses) {
        if (address.kind !== 'tcp') continue;
        const relay = await Relay.open(address);
        relays.push(relay);
        addresses.push(relay.address);
      }
      return { addresses, close: () => listeners.close() };
    },
  };
}

function callAll(runtime: Runtime, from: number): Promise<void>[] {
  return WORKLOAD.map(
    ({ spec, inputBytes, outputBytes }, index) =>
      new Promise((resolve, reject) => {
        const input = new Uint8Array(new Float32Array(inputBytes / 4).fill(1).buffer);
        const call = { ...spec, input: [input], output: [new Uint8Array(outputBytes)] };
        runtime.call(from + index, call, {
          onProgress: () => {},
          onPart: () => {},
          onSettled: (outcome) => (outcome.ok ? resolve() : reject(outcome.error)),
        });
      }),
  );
}

async function play(coordinator: Address, platform: Platform): Promise<void> {
  const options = {
    coordinators: [coordinator],
    run: 'recorded',
    token: TOKEN,
    security: resolveSecurity({}, TOKEN),
    minWorldSize: 1,
    startWorldSize: WORLD_SIZE,
    name: '',
    site: 'here',
    transports: ['tcp'],
    stripes: 2,
    timeoutMs: 30_000,
  } as const;
  const opened: Runtime[] = [];
  try {
    const joining = Array.from({ length: WORLD_SIZE }, () => Runtime.join(options, () => {}, platform));
    for (const { runtime } of await Promise.all(joining)) opened.push(runtime);
    await Promise.all(opened.flatMap((runtime) => callAll(runtime, 0)));
    await Promise.all(opened.map((runtime) => runtime.admit(1, 30_000)));
    // The last one is lost while the others wait for it.
    const [lost, ...left] = [...opened].reverse();
    const waiting = left.flatMap((runtime) => callAll(runtime, WORKLOAD.length));
    await lost!.close(); // there are three
    await Promise.allSettled(waiting);
    await Promise.all(left.map((runtime) => runtime.leave()));
  } finally {
    await Promise.all(opened.map((runtime) => runtime.close()));
  }
}

/** A corpus that an earlier failure left, to repeat it exactly. */
const VARIABLE = 'SKEIN_FUZZ_CORPUS';

/** Damage repeats with its seed, on the same bytes: those of a new recording have other keys, and frames in another order. */
export function corpusToFuzz(): Promise<Corpus> {
  const file = process.env[VARIABLE] ?? '';
  if (file === '') return recordCorpus();
  return Promise.resolve(deserialize(readFileSync(file)) as Corpus); // written by `keepCorpus`
}

/** Keeps what a failure was found with; returns what repeats it. */
export function keepCorpus(corpus: Corpus, seed: number): string {
  const file = resolve(`fuzz-${seed}.corpus`);
  writeFileSync(file, serialize(corpus));
  return `${VARIABLE}=${file}`;
}

async function recordCorpus(): Promise<Corpus> {
  const coordinator = await CoordinatorServer.listen({ port: 0, token: TOKEN });
  const dataRelays: Relay[] = [];
  const control = await Relay.open(parseTcpAddress(coordinator.address));
  try {
    await play(control.address, relayed(dataRelays));
    const spoken = control.recordings();
    const peers = spoken.flatMap(({ dialler }) => messagesOf(PEER_MESSAGES, dialler, Infinity).said);
    const answers = spoken.flatMap(({ listener }) => messagesOf(COORDINATOR_MESSAGES, listener, Infinity).said);
    const data = dataRelays.flatMap((relay) => relay.recordings()).map(readData);
    const admitted = answers.find(({ message }) => message.type === 'admitted')?.message;
    if (admitted?.type !== 'admitted') throw new Error('nobody was admitted to the recorded run');
    return {
      toCoordinator: peers,
      fromCoordinator: answers,
      handshakes: data.flatMap(({ handshake }) => handshake),
      data: data.map(({ stream }) => stream),
      view: admitted.view,
    };
  } finally {
    await Promise.all([control, ...dataRelays].map((relay) => relay.close()));
    await coordinator.close();
  }
}
