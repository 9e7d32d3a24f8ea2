/** What somebody wants who has just come to a port: told by the first bytes, which are left to be read again. */
import type { Socket } from 'node:net';
import { MAX_HANDSHAKE_BYTES } from '../wire/limits.ts';

/** What the first bytes of a connection turn out to be; null: it is too early to tell. */
export type Opening = 'tls' | 'plain' | 'oversized' | null;

/** Begins every TLS connection: a handshake record. A control message is shorter than 64 KiB, so its third byte is zero. */
const TLS_RECORD = [0x16, 0x03] as const;
const TLS_HEADER_BYTES = 5;

/** TLS counts only when its first record is there as a whole: until then nothing is set up for it. */
function openingOf(head: Buffer): Opening {
  for (const [index, byte] of TLS_RECORD.entries()) {
    if (index >= head.length) return null;
    if (head[index] !== byte) return 'plain';
  }
  if (head.length > 2 && head[2] === 0) return 'plain';
  if (head.length < TLS_HEADER_BYTES) return null;
  const length = head.readUInt16BE(3);
  if (length > MAX_HANDSHAKE_BYTES) return 'oversized';
  return head.length < TLS_HEADER_BYTES + length ? null : 'tls';
}

/** Reads as much as tells what the other end wants; it is there to be read again, and the socket is paused. */
export function sniff(socket: Socket, onKnown: (opening: Exclude<Opening, null>) => void): void {
  let head = Buffer.alloc(0);
  const onData = (bytes: Buffer) => {
    head = Buffer.concat([head, bytes]);
    const opening = openingOf(head);
    if (opening === null) return;
    socket.removeListener('data', onData);
    socket.pause();
    socket.unshift(head);
    onKnown(opening);
  };
  socket.on('data', onData);
}
