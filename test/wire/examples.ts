/** One message of each kind, with every field set: the compiler refuses this file when a kind is missing. */
import type { CoordinatorMessage, Introduction } from '../../src/wire/coordinator-messages.ts';
import type { DialMessage } from '../../src/wire/dial-messages.ts';
import type { WireView } from '../../src/wire/parts.ts';
import type { PeerMessage } from '../../src/wire/peer-messages.ts';

type OneOfEach<M extends { readonly type: string }> = { readonly [T in M['type']]: Extract<M, { type: T }> };

/** 32 bytes, as keys, nonces and proofs have. */
export function secretOf(seed: number): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, index) => (index * 31 + seed) & 0xff);
}

const U32_MAX = 0xffff_ffff;

const description: Omit<Introduction, 'peerId' | 'pair' | 'key'> = {
  hostKey: 'machine-1',
  site: 'zürich',
  addresses: [
    { kind: 'tcp', host: 'fe80::1%eth0', port: 65_535 },
    { kind: 'tls', host: '2001:db8::7', port: 1 },
    { kind: 'unix', path: '/tmp/skein/α.sock' },
    { kind: 'memory', name: 'b' },
  ],
  cores: 8,
};

const view: WireView = {
  epoch: U32_MAX,
  generation: 3,
  boundary: 2,
  members: [
    { peerId: 'p0-00000000', site: '', place: 1 },
    { peerId: 'p1-ffffffff', site: 'zürich', place: 0 },
  ],
  cuts: [['p0-00000000', 'p1-ffffffff']],
  costs: {
    near: { hopSeconds: 0.000_1, byteSeconds: 1e-9 },
    far: { hopSeconds: 0.02, byteSeconds: 1 / 3 },
    ring: null,
    sharing: 0.5,
  },
};

export const PEER_EXAMPLES = {
  hello: { type: 'hello', version: 1, run: 'default', claims: 'e30', bound: true, nonce: secretOf(1) },
  prove: { type: 'prove', proof: secretOf(2), startWorldSize: 4, name: 'worker 3', resume: true, ...description },
  resume: {
    type: 'resume',
    report: {
      peerId: 'p0-00000000',
      term: 3,
      epoch: U32_MAX,
      state: 'member',
      boundary: 7,
      views: [view],
      peers: [{ peerId: 'p1-ffffffff', pair: U32_MAX }],
      failed: [{ id: '3:a:0', generation: 3, code: 'lost', message: 'a peer was lost' }],
      excluded: [{ id: '3:a:1', epoch: 6, peers: ['p1-ffffffff'] }],
    },
  },
  ready: { type: 'ready' },
  beat: { type: 'beat' },
  boundary: { type: 'boundary', index: 7, passed: 6, minWorldSize: 1, oldest: 3 },
  done: { type: 'done', id: '3:gradients:12', generation: 3, epoch: 5, spare: 1 },
  progress: {
    type: 'progress',
    epoch: 5,
    held: [
      { id: '3:a:b:0', epoch: 4 },
      { id: '3:🧶:1', epoch: 5 },
    ],
    returned: ['3::2'],
    finished: [{ id: '3::3', ranges: [{ start: 0, end: 2 ** 40, epoch: 4 }] }],
  },
  notes: { type: 'notes', edition: 0, vector: secretOf(3), update: null },
  'ask-flights': { type: 'ask-flights', calls: 1_000 },
  flight: { type: 'flight', to: 'p9', dump: secretOf(7) },
  mismatch: { type: 'mismatch', id: '3:a:0', generation: 3, mine: 'allReduce(…)', theirs: 'barrier(…)', with: 'p1' },
  withdraw: { type: 'withdraw', id: '3:a:0', generation: 3, reason: 'it ran out of time' },
  'link-closed': { type: 'link-closed', peerId: 'p1' },
  signal: { type: 'signal', to: 'p1', signal: { kind: 'offer', session: 7, relay: false, sdp: 'v=0' } },
  ice: { type: 'ice' },
  path: { type: 'path', peerId: 'p1', open: false },
  waits: {
    type: 'waits',
    waits: [{ peerId: 'p1', receiveMs: 812.5, sendMs: 0, calls: [{ id: '3:a:0', epoch: 5, spare: 2 }] }],
  },
  links: {
    type: 'links',
    links: [
      { peerId: 'p1', bytesPerSecond: 12_500_000.5, delayMs: null },
      { peerId: 'p2', bytesPerSecond: null, delayMs: 40.25 },
    ],
  },
  figures: {
    type: 'figures',
    calls: [
      {
        kind: 'allReduce',
        failed: 1,
        retries: 2,
        sentBytes: 2 ** 40,
        receivedBytes: 2 ** 40 + 1,
        seconds: 12.5,
        buckets: Array.from({ length: 32 }, (_, bucket) => bucket * 100),
      },
    ],
    flows: [{ peerId: 'p1', path: 'webrtc', bytesPerSecond: 1.5e9, queuedBytes: 65_536 }],
    sentPerSecond: 1.5e9,
    receivedPerSecond: 1e-3,
    queuedBytes: 65_536,
    open: 4_096,
    boundary: U32_MAX,
    roundTripMs: 0.25,
  },
  leave: { type: 'leave' },
} satisfies OneOfEach<PeerMessage>;

const failed = { id: '3:a:0', code: 'mismatch', message: 'the peers called it differently', peerId: 'p1' } as const;

export const COORDINATOR_EXAMPLES = {
  challenge: { type: 'challenge', version: 1, nonce: secretOf(3), proof: secretOf(4) },
  welcome: {
    type: 'welcome',
    peerId: 'p1',
    isUnderWay: true,
    heartbeatMs: 250,
    boundMs: 3_000,
    ice: { servers: [{ url: 'turn:192.0.2.1:3478', username: '1:p1', credential: 'secret' }], validMs: 86_400_000 },
    peers: [
      { peerId: 'p0', pair: 1, key: secretOf(5), ...description },
      { peerId: 'p2', pair: 2, key: secretOf(6), hostKey: 'machine-2', site: '', addresses: [], cores: 1 },
    ],
  },
  refuse: { type: 'refuse', code: 'unauthorized', message: 'The token is wrong.' },
  introduce: { type: 'introduce', peer: { peerId: 'p2', pair: 3, key: secretOf(7), ...description } },
  dismiss: { type: 'dismiss', peerId: 'p2' },
  signal: {
    type: 'signal',
    from: 'p2',
    signal: { kind: 'candidate', session: U32_MAX, fromDialler: true, candidate: 'candidate:1 1 UDP', mid: '0' },
  },
  ice: { type: 'ice', ice: { servers: [{ url: 'stun:192.0.2.1:3478' }], validMs: 1 } },
  admitted: { type: 'admitted', index: 1, view, joined: ['p0-00000000'], failed: [], excluded: [] },
  boundary: {
    type: 'boundary',
    index: 2,
    view: null,
    joined: [],
    failed: [failed],
    excluded: [{ id: '3:a:1', epoch: 6, peers: ['p1'] }],
  },
  loss: {
    type: 'loss',
    epoch: 6,
    lost: [{ peerId: 'p2', reason: 'left' }],
    broken: ['p0', 'p1'],
    cuts: [],
    resumed: true,
  },
  exclude: { type: 'exclude', id: '3:a:1', epoch: 6, peers: ['p1', 'p2'] },
  resumed: { type: 'resumed', heartbeatMs: 250, boundMs: 3_000 },
  decide: { type: 'decide', epoch: 6, committed: [{ id: '3:gradients:12', epoch: 5 }], kept: [] },
  commit: { type: 'commit', id: '3:gradients:13', epoch: 6 },
  fail: { type: 'fail', ...failed },
  slow: { type: 'slow', peerId: 'p1', waiting: ['p0', 'p2'], blocked: ['p0'], waitedMs: 950.5 },
  probe: { type: 'probe', peerId: 'p2' },
  noted: { type: 'noted', edition: U32_MAX, fresh: true, vector: null, update: secretOf(4) },
  'flights-asked': { type: 'flights-asked', peers: ['p0'], absent: ['p1', 'p2'] },
  'flight-wanted': { type: 'flight-wanted', by: 'p9', calls: 0 },
  'flight-of': { type: 'flight-of', from: 'p0', dump: new Uint8Array(0) },
  watch: { type: 'watch' },
  evicted: { type: 'evicted', reason: 'it gave no sign of life' },
  beat: { type: 'beat' },
} satisfies OneOfEach<CoordinatorMessage>;

export const DIAL_EXAMPLES = {
  dial: {
    type: 'dial',
    version: 1,
    run: 'default',
    from: 'p0',
    to: 'p1',
    session: U32_MAX,
    lane: 'inbound',
    nonce: secretOf(8),
  },
  'dial-accept': { type: 'dial-accept', nonce: secretOf(9), proof: secretOf(10) },
  'dial-prove': { type: 'dial-prove', proof: secretOf(11) },
} satisfies OneOfEach<DialMessage>;
