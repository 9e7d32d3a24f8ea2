/**
 * A peer that connects to others by WebRTC, with node-datachannel alone; what they have to tell one another goes through the
 * process that started them. Makes as many attempts as it is told to, at the same time if need be, and reports on each.
 */
import datachannel, { type DataChannel, PeerConnection, type RtcConfig } from 'node-datachannel';

export interface ProbeSetting {
  readonly role: 'offer' | 'answer';
  readonly configuration: RtcConfig;
  /** For how long it tries (ms). */
  readonly patienceMs: number;
}

/** What one peer tells the other. */
type Signal =
  | { readonly type: 'description'; readonly sdp: string; readonly kind: 'offer' | 'answer' }
  | { readonly type: 'candidate'; readonly candidate: string; readonly mid: string };

export interface ProbeReport {
  readonly type: 'report';
  /** How long it took until a message had come from the other peer; null when it did not come to that. */
  readonly connectedMs: number | null;
  /** Kinds of this peer's candidates: host, srflx, relay. */
  readonly gathered: readonly string[];
  /** Kinds of the two ends of the way that was taken; null when there is none. */
  readonly path: readonly [local: string, remote: string] | null;
}

/** To a probe, on one attempt. */
export interface ProbeOrder {
  readonly attempt: number;
  readonly order: { readonly type: 'begin'; readonly setting: ProbeSetting } | { readonly type: 'end' } | Signal;
}

/** From a probe, on one attempt. The first message is that it is ready. */
export interface ProbeNews {
  readonly attempt: number;
  readonly news: Signal | ProbeReport;
}

/** Larger than any packet. */
const PAYLOAD = Buffer.alloc(64 * 1024, 7);

/** Callbacks of different kinds overtake one another: so long after the end of gathering (ms) all candidates are here. */
const SETTLED_MS = 1_000;

class Probe {
  readonly #tell: (news: ProbeNews['news']) => void;
  readonly #role: ProbeSetting['role'];
  readonly #connection: PeerConnection;
  /** What nothing refers to is collected, and falls silent. */
  readonly #channels: DataChannel[] = [];
  readonly #gathered: Set<string> = new Set();
  readonly #since = performance.now();
  #reported = false;

  constructor({ role, configuration, patienceMs }: ProbeSetting, tell: (news: ProbeNews['news']) => void) {
    this.#tell = tell;
    this.#role = role;
    this.#connection = new PeerConnection(role, configuration);
    this.#connection.onLocalDescription((sdp, kind) => {
      if (kind === 'offer' || kind === 'answer') this.#tell({ type: 'description', sdp, kind });
    });
    this.#connection.onLocalCandidate((candidate, mid) => {
      this.#gathered.add(/ typ (\w+)/.exec(candidate)?.[1] ?? candidate);
      this.#tell({ type: 'candidate', candidate, mid });
    });
    this.#connection.onStateChange((state) => {
      if (state === 'failed') this.#report(null);
    });
    this.#connection.onGatheringStateChange((state) => {
      if (state === 'complete') setTimeout(() => this.#giveUpIfAlone(), SETTLED_MS);
    });
    this.#connection.onDataChannel((channel) => this.#use(channel));
    setTimeout(() => this.#report(null), patienceMs);
    if (role === 'offer') this.#use(this.#connection.createDataChannel('probe'));
  }

  /** Nothing can come of it without a candidate: `relay` leaves none where no server relays. */
  #giveUpIfAlone(): void {
    if (this.#gathered.size === 0) this.#report(null);
  }

  #use(channel: DataChannel): void {
    this.#channels.push(channel);
    if (this.#role === 'offer') channel.onOpen(() => send(channel));
    channel.onMessage((message) => {
      if (typeof message === 'string' || !PAYLOAD.equals(new Uint8Array(message))) return;
      if (this.#role === 'answer') send(channel);
      this.#report(performance.now() - this.#since);
    });
  }

  #report(connectedMs: number | null): void {
    if (this.#reported) return;
    this.#reported = true;
    const pair = connectedMs === null ? null : this.#connection.getSelectedCandidatePair();
    const path = pair === null ? null : ([pair.local.type, pair.remote.type] as const);
    this.#tell({ type: 'report', connectedMs, gathered: [...this.#gathered].sort(), path });
  }

  hear(signal: Signal): void {
    if (signal.type === 'description') this.#connection.setRemoteDescription(signal.sdp, signal.kind);
    else this.#connection.addRemoteCandidate(signal.candidate, signal.mid);
  }

  close(): void {
    this.#connection.close();
  }
}

function send(channel: DataChannel): void {
  try {
    channel.sendMessageBinary(PAYLOAD);
  } catch {
    // It has just closed.
  }
}

const probes: Map<number, Probe> = new Map();
process.on('message', ({ attempt, order }: ProbeOrder) => {
  const tell = (news: ProbeNews['news']): void => {
    const message: ProbeNews = { attempt, news };
    process.send?.(message);
  };
  switch (order.type) {
    case 'begin':
      probes.set(attempt, new Probe(order.setting, tell));
      break;
    case 'end':
      probes.get(attempt)?.close();
      probes.delete(attempt);
      break;
    default:
      probes.get(attempt)?.hear(order);
  }
});
process.on('disconnect', () => {
  for (const probe of probes.values()) probe.close();
  datachannel.cleanup();
  process.exit();
});
process.send?.('ready');
