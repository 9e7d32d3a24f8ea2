/**
 * Peerings for a worker: their connections are made in the page, at the other end of a port, and their data channels come here. Only
 * the set-up passes the page's thread; the data does not.
 */
import type { DescriptionKind, RtcPath } from '../transport/rtc.ts';
import { PagePeering, type Peering, type PeeringEvents, type PeeringSettings } from './peering.ts';

/** From the worker. `id` names a peering. */
type PeeringRequest = { readonly id: number } & (
  | { readonly type: 'open'; readonly settings: PeeringSettings }
  | { readonly type: 'create-channel' }
  | { readonly type: 'description'; readonly kind: DescriptionKind; readonly sdp: string }
  | { readonly type: 'candidate'; readonly candidate: string; readonly mid: string }
  | { readonly type: 'find-path' }
  | { readonly type: 'close' }
);

/** From the page. */
export type PeeringAnswer = { readonly id: number } & (
  | { readonly type: 'description'; readonly kind: DescriptionKind; readonly sdp: string }
  | { readonly type: 'candidate'; readonly candidate: string; readonly mid: string }
  | { readonly type: 'channel'; readonly channel: RTCDataChannel }
  | { readonly type: 'failed'; readonly reason: string }
  | { readonly type: 'path'; readonly path: RtcPath | null }
);

/** The worker's side. */
export class RemotePeerings {
  readonly #port: MessagePort;
  readonly #answered: Map<number, (answer: PeeringAnswer) => void> = new Map();
  #next = 1;

  constructor(port: MessagePort) {
    this.#port = port;
    port.onmessage = ({ data }: MessageEvent<PeeringAnswer>) => this.#answered.get(data.id)?.(data);
  }

  open(settings: PeeringSettings, events: PeeringEvents): Peering {
    const id = this.#next++;
    const ask = (request: PeeringRequest) => this.#port.postMessage(request);
    let onPath: (path: RtcPath | null) => void = () => {};
    this.#answered.set(id, (answer) => {
      switch (answer.type) {
        case 'description':
          events.onDescription(answer.kind, answer.sdp);
          break;
        case 'candidate':
          events.onCandidate(answer.candidate, answer.mid);
          break;
        case 'channel':
          events.onChannel(answer.channel);
          break;
        case 'failed':
          events.onFailed(answer.reason);
          break;
        case 'path':
          onPath(answer.path);
          break;
        default:
          answer satisfies never;
      }
    });
    ask({ id, type: 'open', settings });
    return {
      createChannel: () => ask({ id, type: 'create-channel' }),
      setRemoteDescription: (kind, sdp) => ask({ id, type: 'description', kind, sdp }),
      addRemoteCandidate: (candidate, mid) => ask({ id, type: 'candidate', candidate, mid }),
      findPath: () =>
        new Promise((resolve) => {
          onPath = resolve;
          ask({ id, type: 'find-path' });
        }),
      close: () => {
        this.#answered.delete(id);
        ask({ id, type: 'close' });
      },
    };
  }
}

/** The page's side. @returns what closes all that is open */
export function servePeerings(port: MessagePort): () => void {
  const open = new Map<number, PagePeering>();
  const start = (id: number, settings: PeeringSettings) => {
    const answer = (message: PeeringAnswer, transfer: Transferable[] = []) => port.postMessage(message, transfer);
    const events: PeeringEvents = {
      onDescription: (kind, sdp) => answer({ id, type: 'description', kind, sdp }),
      onCandidate: (candidate, mid) => answer({ id, type: 'candidate', candidate, mid }),
      onChannel: (channel) => {
        try {
          answer({ id, type: 'channel', channel }, [channel]);
        } catch (error) {
          const reason = `this browser can't hand a data channel to a worker (${error}): join with \`engine: 'inline'\``;
          answer({ id, type: 'failed', reason });
        }
      },
      onFailed: (reason) => answer({ id, type: 'failed', reason }),
    };
    open.set(id, new PagePeering(settings, events));
  };
  port.onmessage = ({ data: request }: MessageEvent<PeeringRequest>) => {
    const { id } = request;
    const peering = open.get(id);
    switch (request.type) {
      case 'open':
        start(id, request.settings);
        break;
      case 'create-channel':
        peering?.createChannel();
        break;
      case 'description':
        peering?.setRemoteDescription(request.kind, request.sdp);
        break;
      case 'candidate':
        peering?.addRemoteCandidate(request.candidate, request.mid);
        break;
      case 'find-path':
        void peering?.findPath().then((path) => port.postMessage({ id, type: 'path', path } satisfies PeeringAnswer));
        break;
      case 'close':
        peering?.close();
        open.delete(id);
        break;
      default:
        request satisfies never;
    }
  };
  return () => {
    for (const peering of open.values()) peering.close();
    open.clear();
    port.close();
  };
}
