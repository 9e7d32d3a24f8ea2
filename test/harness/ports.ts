import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below those that Linux gives to whoever names none (from 32,768): what is free now is not given to a connection of somebody
 * else's before it is used.
 */
const FIRST = 20_000;
const LAST = 32_767;

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening');
  } catch {
    return false; // somebody has it
  }
  server.close();
  await once(server, 'close');
  return true;
}

/** Different TCP ports on which nobody listens. Drawn at random, as others draw theirs at the same time. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST + 1));
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}
