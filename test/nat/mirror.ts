/**
 * Public hosts that tell others how they look from outside, and the one who asks them. Run with `answer`, it answers on UDP and
 * TCP with the address that it sees; run with `ask` and the addresses of two such hosts, it sends a `Reflection`.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** What somebody learned of the box before it: addresses as `address:port`, null where no answer came. */
export interface Reflection {
  /** One socket, as it was seen by the first host on two ports, and by the second host. */
  readonly udp: readonly (string | null)[];
  /** Whether that socket heard what the second host sent before anything had been sent to it. */
  readonly heardStranger: boolean;
  /** As the first host saw a connection of TCP. */
  readonly tcp: string | null;
}

const PORTS = [5000, 5001] as const;
const [PORT, OTHER_PORT] = PORTS;
const WHO_AM_I = 'who am I?';
const SENT = 'sent';
/** A packet takes less than a millisecond. */
const PATIENCE_MS = 400;

/** The question is either who asks, or the address of somebody else, to whom something is sent then. */
function onQuestion(socket: Socket, question: string, from: { address: string; port: number }): void {
  const say = (text: string, address: string, port: number): void => socket.send(text, port, address, () => {});
  if (question === WHO_AM_I) {
    say(`${from.address}:${from.port}`, from.address, from.port);
    return;
  }
  const [address, port] = question.split(':');
  say('hello', address!, Number(port));
  say(SENT, from.address, from.port);
}

async function answer(): Promise<void> {
  for (const port of PORTS) {
    const socket = createSocket('udp4').bind(port);
    socket.on('message', (text, from) => onQuestion(socket, text.toString(), from));
    await once(socket, 'listening');
  }
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(`${socket.remoteAddress}:${socket.remotePort}`);
  });
  server.listen(PORT, '0.0.0.0', () => console.log('ready'));
}

/** A UDP socket that remembers who said what. */
class Asker {
  readonly #socket: Socket = createSocket('udp4').bind(0);
  readonly #heard: { readonly text: string; readonly address: string; readonly port: number }[] = [];

  constructor() {
    this.#socket.on('message', (text, { address, port }) => this.#heard.push({ text: text.toString(), address, port }));
  }

  heard(address: string, port: number): string | null {
    return this.#heard.find((one) => one.address === address && one.port === port)?.text ?? null;
  }

  /** What is answered to the question, or null. */
  async ask(question: string, address: string, port: number): Promise<string | null> {
    this.#socket.send(question, port, address, () => {});
    const end = performance.now() + PATIENCE_MS;
    while (performance.now() < end && this.heard(address, port) === null) await delay(5);
    return this.heard(address, port);
  }

  close(): void {
    this.#socket.close();
  }
}

async function ask(first: string, second: string): Promise<void> {
  const [asker, other] = [new Asker(), new Asker()];
  const seen = await asker.ask(WHO_AM_I, first, PORT);
  if (seen !== null && (await other.ask(seen, second, PORT)) !== SENT) throw new Error('the second host is silent');
  await delay(50); // It was sent before the answer.
  const heardStranger = asker.heard(second, PORT) !== null;
  const udp = [seen, await asker.ask(WHO_AM_I, first, OTHER_PORT), await asker.ask(WHO_AM_I, second, OTHER_PORT)];
  const reflection: Reflection = { udp, heardStranger, tcp: await seenThroughTcp(first) };
  process.send?.(reflection);
  for (const one of [asker, other]) one.close();
  process.disconnect();
}

function seenThroughTcp(host: string): Promise<string | null> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(PORT, host).setEncoding('utf8');
    socket.setTimeout(5_000, () => socket.destroy());
    socket.on('data', (data: string) => {
      text += data;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text === '' ? null : text));
  });
}

const [role, first, second] = process.argv.slice(2);
if (role === 'answer') await answer();
else await ask(first!, second!);
