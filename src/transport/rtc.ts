/**
 * WebRTC as Skein needs it: what node-datachannel and a browser have in common. A driver makes sessions, each one peer
 * connection; a session carries one data channel, reliable and ordered.
 */

/** Where a peer learns how it is seen from outside (STUN), or has its packets relayed (TURN). */
export interface IceServer {
  /** As in RFC 7064 and 7065: `stun:host:port`, `turn:host:port` or `turn:host:port?transport=tcp`. */
  readonly url: string;
  readonly username?: string | undefined;
  readonly credential?: string | undefined;
}

export interface RtcChannel {
  /** Bytes that a message may have. */
  readonly maxMessageSize: number;
  /** Bytes sent that have not left this process. */
  readonly bufferedAmount: number;
  /** Never throws: a channel that has closed says so by `onClose`. What `message` shows may be changed afterwards. */
  send(message: Uint8Array | string): void;
  /** Must be set in the turn in which the channel was handed over. */
  handler: RtcChannelHandler;
}

export interface RtcChannelHandler {
  /** Messages can be sent. */
  onOpen(): void;
  onMessage(message: Uint8Array | string): void;
  /** `bufferedAmount` has fallen to `BUFFERED_LOW_BYTES`. */
  onBufferedAmountLow(): void;
  /** Called once, last; not after `RtcSession.close`. */
  onClose(): void;
}

/** Of `bufferedAmount`: below, a channel asks for more. */
export const BUFFERED_LOW_BYTES: number = 512 * 1024;

export type DescriptionKind = 'offer' | 'answer';

/** An offer whose sender leaves no choice who begins the handshake. A proof covers fingerprints, which stay as they are. */
export function asDtlsClient(offer: string): string {
  return offer.replace(/^a=setup:actpass/gm, 'a=setup:active');
}

export interface RtcSessionEvents {
  onDescription(kind: DescriptionKind, sdp: string): void;
  /** One more way to be reached, told as it is found (trickle ICE, RFC 8838). */
  onCandidate(candidate: string, mid: string): void;
  /** The other end has opened the channel. */
  onChannel(channel: RtcChannel): void;
  /** No path was found, or it was lost for good. Not called after `close`. */
  onFailed(reason: string): void;
}

/** How the two ends of a session reach one another. */
export type RtcPath = 'direct' | 'relayed';

export interface RtcSession {
  /** Makes the channel and with it the offer. */
  createChannel(): RtcChannel;
  /** @throws Error when the other end's description is no good */
  setRemoteDescription(kind: DescriptionKind, sdp: string): void;
  addRemoteCandidate(candidate: string, mid: string): void;
  /** Null until there is a path. */
  readonly path: RtcPath | null;
  /** Closes everything, and tells nobody here. */
  close(): void;
}

export interface RtcSettings {
  readonly iceServers: readonly IceServer[];
  /** By TURN servers only. */
  readonly relayOnly: boolean;
}

export interface RtcDriver {
  /** Sessions that hold something of the system's. */
  readonly openSessions: number;
  open(settings: RtcSettings, events: RtcSessionEvents): RtcSession;
}
