/** What a stranger can send over a WebSocket. That it makes a byte stream is for the conformance suite to show. */
import { once } from 'node:events';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import type { Connection, Listener } from '../../src/transport/transport.ts';
import { MAX_WEBSOCKET_MESSAGE_BYTES } from '../../src/transport/websocket.ts';
import { webSocketTransport } from '../../src/transport/websocket-node.ts';

let listener: Listener;
let received = 0;
let closed: Promise<Error | undefined>;
let client: WebSocket;

beforeEach(async () => {
  received = 0;
  let onClosed: (error: Error | undefined) => void;
  closed = new Promise((resolve) => {
    onClosed = resolve;
  });
  listener = await webSocketTransport.listen({ kind: 'ws', url: 'ws://127.0.0.1:0' }, (connection: Connection) => {
    connection.handler = {
      onData: (bytes) => {
        received += bytes.length;
      },
      onEnd: () => {},
      onClose: onClosed,
    };
  });
  if (listener.address.kind !== 'ws') throw new Error('it does not listen by WebSocket');
  client = new WebSocket(listener.address.url);
  client.on('error', () => {});
  await once(client, 'open');
});

afterEach(async () => {
  client.terminate();
  await listener.close();
});

test('a message of the largest size is taken, a longer one closes the connection', async () => {
  client.send(new Uint8Array(MAX_WEBSOCKET_MESSAGE_BYTES));
  await expect.poll(() => received).toBe(MAX_WEBSOCKET_MESSAGE_BYTES);
  client.send(new Uint8Array(MAX_WEBSOCKET_MESSAGE_BYTES + 1));
  expect((await closed)?.message).toMatch(/closed by the other end/);
  expect(received).toBe(MAX_WEBSOCKET_MESSAGE_BYTES);
});

test.each(['hello', 'w', 'w-1', 'w1e9', 'a', '', 'e\n'])('text %j is refused', async (text) => {
  client.send(text);
  expect((await closed)?.message).toContain(`it sent ${JSON.stringify(text)}`);
  await once(client, 'close');
});
