/**
 * WebRTC data channels between peers that can exchange short messages some other way, which is what signalling is: in a run,
 * through the coordinator. Each dial is a session of its own, so two peers that dial one another at once do not meet:
 *
 *     dialler                                  acceptor
 *        │ ── offer {session, relay, sdp} ───────▶ │
 *        │ ◀── answer {session, sdp} ───────────── │
 *        │ ◀── candidate {session, …} ───────────▶ │   from both, as they are found
 *        │ ◀── end {session, reason} ────────────▶ │   from who will not have it, or not any more
 *        │ ══ one data channel ══════════════════▶ │
 *
 * NATs may let the direct paths through, or not; some pretend to. So when a session has no path after a short while, and
 * there are TURN servers, a second one is tried that may use nothing else, and whichever is first wins.
 *
 * **A session that failed is tried once more, and says then how it is reached only once it has the answer.** libdatachannel up to 0.24.5
 * (its pull request 1612) uses an answer for ICE a moment before it knows the certificate in it: who finds the way to the dialler
 * in that moment fails the handshake, of some sessions in a thousand on a busy machine. To wait each time would cost each session
 * half a round trip of the signals, and 50 ms.
 *
 * **Only the dialler uses TURN, and is then the one that begins the handshake of DTLS.** In libdatachannel up to 0.24.5 (its pull request
 * 1630) who answers that handshake over a TURN server of its own may lock up for good, and all WebRTC of its process with it. One relay
 * is enough for any two NATs, as a TURN server lets in whoever comes from the other's address, by whatever port.
 */
import { ConnectError } from '../errors.ts';
import { ChannelConnection } from './channel-connection.ts';
import type { Clock } from './clock.ts';
import {
  asDtlsClient,
  type DescriptionKind,
  type IceServer,
  type RtcChannel,
  type RtcDriver,
  type RtcSession,
  type RtcSessionEvents,
  type RtcSettings,
} from './rtc.ts';
import type { Address, Connection, DialOptions, Listener, Transport } from './transport.ts';

/** `session`: a number that its dialler has chosen. Both ends may have chosen the same for sessions of theirs. */
export type Signal =
  | { readonly kind: 'offer'; readonly session: number; readonly relay: boolean; readonly sdp: string }
  | { readonly kind: 'answer'; readonly session: number; readonly sdp: string }
  | {
      readonly kind: 'candidate';
      readonly session: number;
      readonly fromDialler: boolean;
      readonly candidate: string;
      readonly mid: string;
    }
  | {
      readonly kind: 'end';
      readonly session: number;
      readonly fromDialler: boolean;
      readonly reason: string;
    };

export interface WebRtcOptions {
  readonly driver: RtcDriver;
  readonly clock: Clock;
  readonly random: (length: number) => Uint8Array;
  /** Sends to a peer, in order. What can't be delivered is lost, or answered with an `end`. */
  readonly signal: (peerId: string, signal: Signal) => void;
  /** As they are now: credentials expire. */
  readonly iceServers: () => readonly IceServer[];
}

/** How long the direct paths have before relayed ones are tried as well (ms). */
const RELAY_AFTER_MS = 2_000;

/** How long one who was dialled waits for the channel (ms). */
const ACCEPT_MS = 30_000;

/** Sessions that others may begin here and that have no channel yet; more are refused. */
const MAX_ACCEPTING = 256;

/** Largest reason of an end, in UTF-16 units. */
const MAX_REASON = 500;

/** Candidates of one session that are looked at. */
const MAX_CANDIDATES = 64;

/** One end of a session that has no channel yet. */
interface Pending {
  readonly session: RtcSession;
  candidates: number;
  /** Descriptions, once they are told. */
  local: string | null;
  remote: string | null;
  /** The other end has ended it, or can't be understood. `isFinal`: another path would not help. */
  readonly fail: (reason: string, isFinal: boolean) => void;
  /** The other end's description is set. */
  readonly onDescribed: () => void;
}

export class WebRtcTransport implements Transport {
  readonly kind = 'webrtc';
  readonly #options: WebRtcOptions;
  /** By peer and number. */
  readonly #dialling: Map<string, Pending> = new Map();
  readonly #accepting: Map<string, Pending> = new Map();
  #onConnection: ((connection: Connection) => void) | null = null;

  constructor(options: WebRtcOptions) {
    this.#options = options;
  }

  async listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    const { peerId } = webrtcOnly(address);
    if (this.#onConnection !== null) {
      throw new ConnectError('This peer listens on WebRTC already.', { phase: 'listen' });
    }
    this.#onConnection = onConnection;
    return {
      address: { kind: 'webrtc', peerId },
      close: async () => {
        if (this.#onConnection !== onConnection) return;
        this.#onConnection = null;
        for (const pending of [...this.#accepting.values()]) pending.fail('it does not listen any more', true);
      },
    };
  }

  async dial(address: Address, options: DialOptions): Promise<Connection> {
    try {
      return await this.#dial(webrtcOnly(address).peerId, options);
    } finally {
      // What arrives lands in the channel's own memory.
      options.onReadBufferFree?.();
    }
  }

  /** A signal came from a peer. */
  onSignal(peerId: string, signal: Signal): void {
    if (signal.kind === 'offer') {
      this.#accept(peerId, signal);
      return;
    }
    const isAccepted = signal.kind !== 'answer' && signal.fromDialler;
    const key = keyOf(peerId, signal.session);
    const pending = (isAccepted ? this.#accepting : this.#dialling).get(key);
    if (pending === undefined) return; // it is over
    // Who will not have it says so instead of an answer; later, it has found no path.
    if (signal.kind === 'end') pending.fail(signal.reason, pending.remote === null);
    else if (signal.kind === 'answer') describe(pending, 'answer', signal.sdp);
    else if (pending.candidates < MAX_CANDIDATES) {
      pending.candidates += 1;
      pending.session.addRemoteCandidate(signal.candidate, signal.mid);
    }
  }

  // --- dialling ----------------------------------------------------------------------------------------------------

  #dial(peerId: string, options: DialOptions): Promise<Connection> {
    const { clock } = this.#options;
    const { timeoutMs, signal, relay } = options;
    const remote = `webrtc ${peerId}`;
    return new Promise((resolve, reject) => {
      const attempts = new Set<() => void>();
      let reason = 'no path was found';
      const hasRelays = relay !== 'never' && this.#options.iceServers().some(isRelay);
      const onlyRelays = relay === 'only' && hasRelays;
      let triesRelays = onlyRelays;
      const settle = () => {
        stopTimer();
        stopWaiting();
        signal?.removeEventListener('abort', onAbort);
        for (const cancel of attempts) cancel();
        attempts.clear();
      };
      const fail = (message: string) => {
        settle();
        reject(new ConnectError(message, { cause: signal?.reason, phase: 'dial' }));
      };
      const onAbort = () => fail(`Dialling ${remote} was cancelled.`);
      const attempt = (relayOnly: boolean, isSecond: boolean) => {
        const iceServers = this.#options.iceServers().filter((server) => relayOnly || !isRelay(server));
        const cancel = this.#attempt(
          peerId,
          { iceServers, relayOnly },
          {
            holdsCandidates: isSecond,
            onOpen: (connection) => {
              attempts.delete(cancel);
              settle();
              resolve(connection);
            },
            onFailed: (why, isFinal) => {
              attempts.delete(cancel);
              reason = why;
              if (!isFinal) {
                if (!isSecond) attempt(relayOnly, true);
                else if (!relayOnly) tryRelays();
              }
              if (isFinal || attempts.size === 0) fail(`Nobody could be reached at ${remote}: ${reason}.`);
            },
          },
        );
        attempts.add(cancel);
      };
      const tryRelays = () => {
        if (triesRelays || !hasRelays) return;
        triesRelays = true;
        attempt(true, false);
      };
      const stopTimer = clock.schedule(timeoutMs, () =>
        fail(`${remote} could not be reached within ${timeoutMs} ms: ${reason}.`),
      );
      const stopWaiting = clock.schedule(RELAY_AFTER_MS, tryRelays);
      if (signal?.aborted === true) {
        onAbort();
        return;
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      attempt(onlyRelays, false);
    });
  }

  /** One session towards a peer. @returns what gives it up */
  #attempt(
    peerId: string,
    settings: RtcSettings,
    {
      holdsCandidates,
      onOpen,
      onFailed,
    }: {
      /** Until there is an answer. */
      readonly holdsCandidates: boolean;
      readonly onOpen: (connection: Connection) => void;
      readonly onFailed: (reason: string, isFinal: boolean) => void;
    },
  ): () => void {
    const { driver, random, signal } = this.#options;
    const { relayOnly } = settings;
    const number = new DataView(random(4).buffer).getUint32(0);
    const key = keyOf(peerId, number);
    const cancel = (reason: string) => {
      if (!this.#dialling.delete(key)) return false;
      session.close();
      signal(peerId, { kind: 'end', session: number, fromDialler: true, reason });
      return true;
    };
    const fail = (reason: string, isFinal: boolean) => {
      if (cancel(reason)) onFailed(reason, isFinal);
    };
    let held: Signal[] | null = holdsCandidates ? [] : null;
    const session = driver.open(settings, {
      onDescription: (_, sdp) => {
        pending.local = sdp;
        signal(peerId, { kind: 'offer', session: number, relay: relayOnly, sdp: relayOnly ? asDtlsClient(sdp) : sdp });
      },
      onCandidate: (candidate, mid) => {
        const told: Signal = { kind: 'candidate', session: number, fromDialler: true, candidate, mid };
        if (held === null) signal(peerId, told);
        else held.push(told);
      },
      onChannel: () => fail('it opened a channel of its own', true),
      onFailed: (reason) => fail(reason, false),
    });
    const onDescribed = () => {
      for (const told of held ?? []) signal(peerId, told);
      held = null;
    };
    const pending: Pending = { session, candidates: 0, local: null, remote: null, fail, onDescribed };
    this.#dialling.set(key, pending);
    const channel = session.createChannel();
    channel.handler = {
      onOpen: () => {
        this.#dialling.delete(key);
        onOpen(this.#connection(pending, channel, peerId, { dialled: true, relayOnly }));
      },
      onMessage: () => {},
      onBufferedAmountLow: () => {},
      onClose: () => fail('no path was found', false),
    };
    return () => void cancel('it is not wanted any more');
  }

  #connection(
    pending: Pending,
    channel: RtcChannel,
    peerId: string,
    { dialled, relayOnly }: { readonly dialled: boolean; readonly relayOnly: boolean },
  ): Connection {
    const { session, local, remote } = pending;
    const [own, theirs] = [fingerprintOf(local), fingerprintOf(remote)];
    const binding = new TextEncoder().encode(dialled ? `${own} ${theirs}` : `${theirs} ${own}`);
    const { clock } = this.#options;
    return new ChannelConnection({ session, channel, remote: `webrtc ${peerId}`, binding, clock, dialled, relayOnly });
  }

  // --- accepting ---------------------------------------------------------------------------------------------------

  #accept(peerId: string, offer: Extract<Signal, { kind: 'offer' }>): void {
    const { driver, iceServers, signal, clock } = this.#options;
    const number = offer.session;
    const key = keyOf(peerId, number);
    if (this.#onConnection === null || this.#accepting.size >= MAX_ACCEPTING || this.#accepting.has(key)) {
      const reason = this.#onConnection === null ? 'it does not listen' : 'too many dial it at once';
      signal(peerId, { kind: 'end', session: number, fromDialler: false, reason });
      return;
    }
    const end = () => {
      stopTimer();
      return this.#accepting.delete(key);
    };
    const fail = (reason: string) => {
      if (!end()) return;
      session.close();
      signal(peerId, { kind: 'end', session: number, fromDialler: false, reason });
    };
    const stopTimer = clock.schedule(ACCEPT_MS, () => fail('no path was found'));
    const events: RtcSessionEvents = {
      onDescription: (_, sdp) => {
        pending.local = sdp;
        signal(peerId, { kind: 'answer', session: number, sdp });
      },
      onCandidate: (candidate, mid) =>
        signal(peerId, { kind: 'candidate', session: number, fromDialler: false, candidate, mid }),
      onChannel: (channel) => {
        // The dialler sends at once; nothing of that may be lost.
        const onConnection = this.#onConnection;
        end();
        if (onConnection === null) session.close();
        else onConnection(this.#connection(pending, channel, peerId, { dialled: false, relayOnly: offer.relay }));
      },
      onFailed: fail,
    };
    const direct = iceServers().filter((server) => !isRelay(server));
    const session = driver.open({ iceServers: direct, relayOnly: false }, events);
    const pending: Pending = { session, candidates: 0, local: null, remote: null, fail, onDescribed: () => {} };
    this.#accepting.set(key, pending);
    describe(pending, 'offer', offer.sdp);
  }
}

function isRelay({ url }: IceServer): boolean {
  return url.startsWith('turn');
}

function keyOf(peerId: string, session: number): string {
  return `${session} ${peerId}`;
}

/** Takes the other end's description, once. */
function describe(pending: Pending, kind: DescriptionKind, sdp: string): void {
  if (pending.remote !== null) return;
  pending.remote = sdp;
  if (fingerprintOf(sdp) === null) {
    pending.fail(`its ${kind} does not name one certificate`, true);
    return;
  }
  try {
    pending.session.setRemoteDescription(kind, sdp);
    pending.onDescribed();
  } catch (error) {
    pending.fail(
      `its ${kind} is no good: ${error instanceof Error ? error.message : error}`.slice(0, MAX_REASON),
      true,
    );
  }
}

/**
 * Of the certificate with which an end must present itself; WebRTC closes a session whose certificate is another. Null when none
 * is named, or several: any of them would do then, and the proof would cover but one.
 */
function fingerprintOf(sdp: string | null): string | null {
  const named = [...(sdp ?? '').matchAll(/^a=fingerprint:(.*)$/gim)].map((match) => match[1]!.trim().toUpperCase());
  const [fingerprint = null, ...others] = new Set(named);
  return others.length === 0 ? fingerprint : null;
}

function webrtcOnly(address: Address): Extract<Address, { kind: 'webrtc' }> {
  if (address.kind !== 'webrtc') throw new ConnectError(`WebRTC can't use an address of kind ${address.kind}.`);
  return address;
}
