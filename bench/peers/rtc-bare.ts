/** One end of a bare node-datachannel program, with the settings of Skein's transport: what its link is measured against. */
import nodeDataChannel, { type DataChannel, type PeerConnection } from 'node-datachannel';

export type BareSignal =
  | { readonly type: 'description'; readonly kind: 'offer' | 'answer'; readonly sdp: string }
  | { readonly type: 'candidate'; readonly candidate: string; readonly mid: string };

export type BareReport = BareSignal | { readonly type: 'ready' } | { readonly type: 'done'; readonly seconds: number };
export type BareOrder = BareSignal | { readonly type: 'send'; readonly bytes: number };

const MESSAGE_BYTES = 64 * 1024;
const HIGH_BYTES = 1024 * 1024;
const LOW_BYTES = 512 * 1024;

const say = (report: BareReport) => process.send?.(report);
const isSender = process.argv[2] === 'sender';
const connection: PeerConnection = new nodeDataChannel.PeerConnection('bare', { iceServers: [] });
/** What nothing refers to is collected. */
const held: DataChannel[] = [];

connection.onLocalDescription((sdp, kind) => {
  if (kind === 'offer' || kind === 'answer') say({ type: 'description', kind, sdp });
});
connection.onLocalCandidate((candidate, mid) => say({ type: 'candidate', candidate, mid }));

let wanted = 0;
let sent = 0;
let startedAt = 0;
const message = new Uint8Array(MESSAGE_BYTES).fill(7);

function pump(channel: DataChannel): void {
  while (sent < wanted && channel.bufferedAmount() < HIGH_BYTES) {
    channel.sendMessageBinary(message);
    sent += message.length;
  }
}

/** The receiver answers when it has all; it is told beforehand how much that is. */
function serve(channel: DataChannel): void {
  let left = 0;
  channel.onMessage((received) => {
    if (typeof received === 'string') left = Number(received);
    else left -= received.byteLength;
    if (left === 0) channel.sendMessage('all');
  });
}

if (isSender) {
  const channel = connection.createDataChannel('bare');
  held.push(channel);
  channel.setBufferedAmountLowThreshold(LOW_BYTES);
  channel.onBufferedAmountLow(() => pump(channel));
  channel.onOpen(() => say({ type: 'ready' }));
  channel.onMessage(() => say({ type: 'done', seconds: (performance.now() - startedAt) / 1_000 }));
} else {
  connection.onDataChannel((channel) => {
    held.push(channel);
    serve(channel);
  });
}

process.on('message', (order: BareOrder) => {
  if (order.type === 'description') connection.setRemoteDescription(order.sdp, order.kind);
  else if (order.type === 'candidate') connection.addRemoteCandidate(order.candidate, order.mid);
  else {
    const [channel] = held;
    if (channel === undefined) return;
    [wanted, sent, startedAt] = [order.bytes, 0, performance.now()];
    channel.sendMessage(String(order.bytes));
    pump(channel);
  }
});
process.on('disconnect', () => process.exit(0));
