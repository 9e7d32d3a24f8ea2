/** One end of a bare node-datachannel program, with the settings of Skein's transport: what its link is measured against. */
import nodeDataChannel, { type DataChannel, type PeerConnection } from 'node-datachannel';

export type BareSignal =
  | { readonly type: 'description'; readonly kind: 'offer' | 'answer'; readonly sdp: string }
  | { readonly type: 'candidate'; readonly candidate: string; readonly mid: string };

/** `cpuSeconds`: of this process, from the order on. */
export type BareReport =
  | BareSignal
  | { readonly type: 'ready' }
  | { readonly type: 'done'; readonly seconds: number; readonly cpuSeconds: number };
export type BareOrder = BareSignal | { readonly type: 'send'; readonly bytes: number };

const MESSAGE_BYTES = 64 * 1024;
const HIGH_BYTES = 1024 * 1024;
const LOW_BYTES = 512 * 1024;
const ALL = 'all';

const say = (report: BareReport) => process.send?.(report);
const connection: PeerConnection = new nodeDataChannel.PeerConnection('bare', { iceServers: [] });
/** What nothing refers to is collected. */
const held: DataChannel[] = [];

connection.onLocalDescription((sdp, kind) => {
  if (kind === 'offer' || kind === 'answer') say({ type: 'description', kind, sdp });
});
connection.onLocalCandidate((candidate, mid) => say({ type: 'candidate', candidate, mid }));

let wanted = 0;
let sent = 0;
/** Of what the other end sends; it says beforehand how much that is. */
let left = 0;
let startedAt = 0;
let usage = process.cpuUsage();
const message = new Uint8Array(MESSAGE_BYTES).fill(7);

function pump(channel: DataChannel): void {
  while (sent < wanted && channel.bufferedAmount() < HIGH_BYTES) {
    channel.sendMessageBinary(message);
    sent += message.length;
  }
}

/** An end answers when it has all that was announced. */
function serve(channel: DataChannel): void {
  held.push(channel);
  channel.setBufferedAmountLowThreshold(LOW_BYTES);
  channel.onBufferedAmountLow(() => pump(channel));
  channel.onOpen(() => say({ type: 'ready' }));
  channel.onMessage((received) => {
    if (received === ALL) {
      const { user, system } = process.cpuUsage(usage);
      say({ type: 'done', seconds: (performance.now() - startedAt) / 1_000, cpuSeconds: (user + system) / 1e6 });
      return;
    }
    if (typeof received === 'string') left = Number(received);
    else left -= received.byteLength;
    if (left === 0) channel.sendMessage(ALL);
  });
}

if (process.argv[2] === 'dialler') serve(connection.createDataChannel('bare'));
else connection.onDataChannel(serve);

process.on('message', (order: BareOrder) => {
  if (order.type === 'description') connection.setRemoteDescription(order.sdp, order.kind);
  else if (order.type === 'candidate') connection.addRemoteCandidate(order.candidate, order.mid);
  else {
    const [channel] = held;
    if (channel === undefined) return;
    [wanted, sent, startedAt, usage] = [order.bytes, 0, performance.now(), process.cpuUsage()];
    channel.sendMessage(String(order.bytes));
    pump(channel);
  }
});
process.on('disconnect', () => process.exit(0));
