/**
 * The relay's process, in the router's namespace: packets come from and go to the TUN device as UDP datagrams, by way of a
 * socat that it starts. Orders are lines of JSON on stdin; the end of stdin, which is also what is left of a `skein chaos` that was
 * killed, is the end of the relay. It says when it is ready, and at the end what it did.
 */
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';
import { DisturbedPath } from './packets.ts';
import type { RelayNews, RelayOrder } from './relay.ts';

/** Ports of the router's own loopback interface, which nobody else uses. */
const RELAY_PORT = 4_000;
const SOCAT_PORT = 4_001;
const LOOPBACK = '127.0.0.1';

/** The kernel may give less. What doesn't fit is lost, as on a real path that is overloaded. */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;

const [device, seed] = [process.argv[2]!, Number(process.argv[3])]; // given by relay.ts
const path = new DisturbedPath(seed);
const socket = createSocket('udp4');
let timer: NodeJS.Timeout | null = null;

function forward(): void {
  timer = null;
  for (const packet of path.departures(performance.now())) socket.send(packet, SOCAT_PORT, LOOPBACK);
  const next = path.nextAt;
  if (next !== null) timer = setTimeout(forward, Math.max(0, next - performance.now()));
}

function tell(news: RelayNews): void {
  console.log(JSON.stringify(news));
}

function obey({ address, how }: RelayOrder): void {
  path.disturb(Buffer.from(address.split('.').map(Number)).readUInt32BE(), how);
}

socket.on('message', (packet) => {
  path.arrive(packet, performance.now());
  const next = path.nextAt;
  if (next === null) return;
  // A packet that overtakes leaves now, whatever the timer is set to.
  if (next <= performance.now()) {
    if (timer !== null) clearTimeout(timer);
    forward();
  } else if (timer === null) forward();
});

socket.bind(RELAY_PORT, LOOPBACK, () => {
  socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
  socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  // Not before we listen: a refused datagram would end it.
  const tun = `TUN,tun-name=${device},tun-type=tun,iff-no-pi,iff-up`;
  const socat = spawn('socat', [tun, `UDP:${LOOPBACK}:${RELAY_PORT},bind=${LOOPBACK}:${SOCAT_PORT}`], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const fail = (text: string): void => {
    console.error(text);
    process.exit(1);
  };
  socat.once('error', (error) => fail(error.message));
  socat.once('exit', (code) => fail(`socat ended with exit code ${code}`));
  createInterface({ input: process.stdin })
    .on('line', (line) => obey(JSON.parse(line) as RelayOrder)) // written by relay.ts
    .once('close', () => {
      socat.removeAllListeners('exit').kill();
      tell({ type: 'ended', counts: path.counts });
      process.exit(0);
    });
  tell({ type: 'ready' });
});
