/** `skein coordinator`: the one process of a run that peers must be able to find. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import pc from 'picocolors';
import { Coordinator, type EtcdAccess } from '../index.ts';
import { address, nonEmpty, seconds, wholeNumber } from './arguments.ts';

interface CoordinatorOptions {
  readonly host: string;
  readonly port: number;
  readonly token?: string;
  readonly store?: string;
  readonly lease: number;
  readonly advertise?: string;
  readonly etcdUser?: string;
  readonly etcdPassword?: string;
  /** Paths of PEM files, as those below. */
  readonly etcdCa?: string;
  readonly etcdCert?: string;
  readonly etcdKey?: string;
  readonly ice: readonly string[];
  readonly turnSecret?: string;
  readonly httpPort?: number;
  readonly servePage?: boolean;
  readonly dashboard?: boolean;
  readonly peerSeries: number;
  readonly probes: boolean;
  /** Paths of PEM files. */
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
}

/** Where HTTP is served unless a port is named. */
const HTTP_PORT = 7401;

/** What the build put together for browsers, beside what it compiled. */
const PAGE_FOLDER: string = fileURLToPath(new URL('../../browser/', import.meta.url));

const HELP = `
Peers find each other through a coordinator. It admits them, notices when one is lost, and decides what becomes of
what that one was part of. Tensors never pass through it. One coordinator serves any number of runs.

Connections from other machines are TLS 1.3, with keys that come from the token, or with certificates of your own: give
--cert, --key and --ca, and the same to every peer. With them, the HTTP port is HTTPS.

Without a token it listens on the loopback interface only. Give the token by SKEIN_TOKEN: unlike an option, it is
not shown in the list of processes.

With an HTTP port it shows its runs there: /dashboard is a page, /metrics is for Prometheus, /api/state and /api/events are for
programs. Where there is a token, all but the page itself asks for it, or for a pass: skein token --role observer to look,
--role admin to dismiss peers, too.

It prints a line for whoever joins, is lost, or is turned away.

Several that share an etcd elect one that leads. Peers are given the addresses of all, and find it. When it dies, is
stopped, or can't reach etcd, another takes over after --lease; calls that are open go on, and nobody is evicted.

Examples:
  On this machine only, on the usual port:
    $ skein coordinator

  For other machines, which then need the same token:
    $ SKEIN_TOKEN=$(openssl rand -hex 32) skein coordinator --host 0.0.0.0

  One that can be started again: peers wait for it, and go on where they were.
    $ skein coordinator --store runs.json

  Two of which one leads and the other takes over; peers are given both addresses, with a comma between:
    $ SKEIN_TOKEN=… skein coordinator --host 0.0.0.0 --store etcd:http://etcd-1:2379,http://etcd-2:2379,http://etcd-3:2379 --advertise tcp://first:7400
    $ SKEIN_TOKEN=… skein coordinator --host 0.0.0.0 --store etcd:http://etcd-1:2379,http://etcd-2:2379,http://etcd-3:2379 --advertise tcp://second:7400
    $ SKEIN_COORDINATOR=tcp://first:7400,tcp://second:7400 SKEIN_TOKEN=… node train.js

  For peers behind NATs, who use WebRTC (transports: ['unix', 'tcp', 'webrtc']):
    $ SKEIN_TOKEN=… SKEIN_TURN_SECRET=… skein coordinator --host 0.0.0.0 --ice stun:turn.example:3478 turn:turn.example:3478

  With a page that shows its runs, figures for Prometheus (/metrics), and the same in a terminal by skein top:
    $ skein coordinator --dashboard

  For peers in browsers, with a page by which visitors join a run:
    $ skein coordinator --serve-page

  A peer joins it, from any machine:
    $ SKEIN_COORDINATOR=tcp://host:7400 SKEIN_RUN=my-run SKEIN_TOKEN=… node train.js
  or four of them at once:
    $ SKEIN_TOKEN=… skein launch -n 4 --coordinator tcp://host:7400 --run my-run -- node train.js`;

function etcdAccess(options: CoordinatorOptions, read: (path: string) => string): EtcdAccess {
  const { etcdUser, etcdPassword, etcdCa, etcdCert, etcdKey } = options;
  return {
    ...(etcdUser === undefined ? {} : { user: etcdUser }),
    ...(etcdPassword === undefined ? {} : { password: etcdPassword }),
    ...(etcdCa === undefined ? {} : { ca: read(etcdCa) }),
    ...(etcdCert === undefined ? {} : { cert: read(etcdCert) }),
    ...(etcdKey === undefined ? {} : { key: read(etcdKey) }),
  };
}

async function serve(options: CoordinatorOptions): Promise<void> {
  const { host, port, token, store, lease, advertise, ice, turnSecret, cert, key, ca, servePage, probes } = options;
  const { dashboard, peerSeries } = options;
  const isServed = servePage === true || dashboard === true;
  const httpPort = options.httpPort ?? (isServed ? HTTP_PORT : undefined);
  const iceServers = ice.map((url) =>
    turnSecret !== undefined && url.startsWith('turn') ? { url, secret: turnSecret } : { url },
  );
  const read = (path: string) => readFileSync(path, 'utf8');
  // Who reads this may be gone: that is no reason to end.
  process.stdout.on('error', () => {});
  const coordinator = await Coordinator.listen({
    onNote: (line) => console.log(`${pc.dim(new Date().toISOString())} ${line}`),
    host,
    port,
    iceServers,
    probes,
    ...(token === undefined ? {} : { token }),
    ...(store === undefined ? {} : { store, leaseMs: lease }),
    ...(advertise === undefined ? {} : { advertise }),
    etcd: etcdAccess(options, read),
    ...(httpPort === undefined
      ? {}
      : { http: { port: httpPort, peerSeries, ...(servePage === true ? { folder: PAGE_FOLDER } : {}) } }),
    ...(cert === undefined ? {} : { cert: read(cert) }),
    ...(key === undefined ? {} : { key: read(key) }),
    ...(ca === undefined ? {} : { ca: read(ca) }),
  });
  // Before anybody can read the address, and think of ending it.
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  console.log(`${pc.bold('Coordinator')} listening at ${pc.cyan(coordinator.address)}`);
  console.log(
    `Peers join it by  join('${coordinator.address}', { run: 'my-run'${token === undefined ? '' : ', token'} })`,
  );
  console.log(`or are started by skein launch -n 4 --coordinator ${coordinator.address} --run my-run -- node train.js`);
  if (token !== undefined) console.log('Both need the same token, for example in SKEIN_TOKEN.');
  const { httpAddress } = coordinator;
  if (httpAddress !== null) {
    console.log(
      `${pc.bold('Dashboard')} at ${pc.cyan(`${httpAddress}/dashboard`)}, figures for Prometheus at ${httpAddress}/metrics`,
    );
    console.log(`Peers in browsers join it by ${pc.cyan(httpAddress.replace(/^http/, 'ws'))}`);
    const link = `${httpAddress}/#run=picture${token === undefined ? '' : '&token=…'}`;
    if (servePage === true) console.log(`Visitors of ${pc.cyan(link)} join the run of that name.`);
  }
  console.log('Ctrl-C ends it.');
  await stopped;
  await coordinator.close();
}

export function coordinatorCommand(): Command {
  return new Command('coordinator')
    .summary('serve runs: the one process that peers must be able to find')
    .description('Start a coordinator and serve until SIGINT or SIGTERM.')
    .option('--host <host>', 'interface to listen on', nonEmpty, '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 takes a free one', wholeNumber(0, 65_535), 7400)
    .addOption(new Option('--token <token>', 'secret that peers must know').env('SKEIN_TOKEN').argParser(nonEmpty))
    .option('--store <where>', 'a file, or etcd:http://host:2379,…: what a successor must know is kept there', nonEmpty)
    .addOption(
      new Option('--lease <seconds>', 'with etcd: when another one takes over from a leader that is silent')
        .argParser(seconds)
        .default(3_000, '3'),
    )
    .option('--advertise <address>', 'with etcd: where peers reach this one, if not where it listens', address)
    .addOption(new Option('--etcd-user <name>', 'user of etcd').env('SKEIN_ETCD_USER').argParser(nonEmpty))
    .addOption(new Option('--etcd-password <word>', 'its password').env('SKEIN_ETCD_PASSWORD').argParser(nonEmpty))
    .option('--etcd-ca <file>', "authority of etcd's certificates, PEM", nonEmpty)
    .option('--etcd-cert <file>', 'certificate that etcd asks for, PEM, without a common name', nonEmpty)
    .option('--etcd-key <file>', 'its private key, PEM', nonEmpty)
    .option('--ice <url...>', 'STUN and TURN servers for peers behind NATs, as stun:host:3478', [])
    .addOption(
      new Option('--turn-secret <secret>', 'shared secret of the TURN servers')
        .env('SKEIN_TURN_SECRET')
        .argParser(nonEmpty),
    )
    .option(
      '--http-port <port>',
      'also listen on HTTP, for the dashboard, figures, and peers in browsers; 0 takes a free port',
      wholeNumber(0, 65_535),
    )
    .option('--serve-page', `serve a page by which visitors join a run (HTTP port ${HTTP_PORT} unless named)`)
    .option('--dashboard', `show the runs in a page, and figures for Prometheus (HTTP port ${HTTP_PORT} unless named)`)
    .option(
      '--peer-series <count>',
      'members of each run that have series of their own in /metrics',
      wholeNumber(0, 1_024),
      64,
    )
    .option('--no-probes', 'measure no ways between peers that carry nothing, for the order of the ring')
    .option('--cert <file>', 'certificate for TLS, PEM, made out for the host that peers dial', nonEmpty)
    .option('--key <file>', 'its private key, PEM', nonEmpty)
    .option('--ca <file>', 'authority by which peers are known, PEM', nonEmpty)
    .addHelpText('after', HELP)
    .action(serve);
}
