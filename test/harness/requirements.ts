/** What some tests need of the machine. Missing, it skips them with the reason; with SKEIN_REQUIRE_ALL set it fails them. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import type { TestContext } from 'vitest';
import { namespacesMissing, programMissing } from '../../src/chaos/namespace-set.ts';
import { relayMissing } from '../../src/chaos/namespaces.ts';
import { longPipeMissing } from './long-pipe.ts';

/** Debian's. */
export const CHROMIUM: string = process.env['SKEIN_CHROMIUM'] ?? '/usr/bin/chromium';

function require(context: Pick<TestContext, 'skip'>, present: boolean, reason: string): void {
  if (present) return;
  if ((process.env['SKEIN_REQUIRE_ALL'] ?? '') !== '') throw new Error(`SKEIN_REQUIRE_ALL is set, but ${reason}`);
  context.skip(reason);
}

export function requireIPv6(context: Pick<TestContext, 'skip'>): void {
  const present = Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some((one) => one.address === '::1'),
  );
  require(context, present, 'this machine has no IPv6 loopback address');
}

/** An IPv4 address at which other machines could reach this one. */
export function requireOutwardAddress(context: Pick<TestContext, 'skip'>): string {
  const outward = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal);
  require(context, outward !== undefined, 'this machine has no IPv4 address but loopback');
  return outward?.address ?? '';
}

/** Certificates of the test's own. */
export function requireOpenssl(context: Pick<TestContext, 'skip'>): void {
  const present = spawnSync('openssl', ['version']).status === 0;
  require(context, present, 'this machine has no openssl (scripts/setup-system.sh installs it)');
}

/** A network of the test's own, which it makes and removes. */
export function requireNamespaces(context: Pick<TestContext, 'skip'>): void {
  const missing = namespacesMissing();
  require(context, missing === null, missing ?? '');
}

/** The same, with the relay that delays and damages packets. */
export function requireRelay(context: Pick<TestContext, 'skip'>): void {
  const missing = namespacesMissing() ?? relayMissing();
  require(context, missing === null, missing ?? '');
}

/** The same, with a long way between two of them. */
export function requireLongPipe(context: Pick<TestContext, 'skip'>): void {
  const missing = namespacesMissing() ?? longPipeMissing();
  require(context, missing === null, missing ?? '');
}

/** The same, with a server of STUN and TURN on it. */
export function requireInternet(context: Pick<TestContext, 'skip'>): void {
  const missing = namespacesMissing() ?? programMissing('turnserver', '-h', 'coturn');
  require(context, missing === null, missing ?? '');
}

/** Coordinators' store, where several share one. */
export function requireEtcd(context: Pick<TestContext, 'skip'>): void {
  const missing = programMissing('etcd', '--version', 'etcd-server');
  require(context, missing === null, missing ?? '');
}

/** A browser, headless. */
export function requireChromium(context: Pick<TestContext, 'skip'>): void {
  require(context, existsSync(CHROMIUM), `this machine has no ${CHROMIUM} (scripts/setup-system.sh installs it)`);
}

/** Gloo and Open MPI, and what compiles programs for them. */
export function requireRivals(context: Pick<TestContext, 'skip'>): void {
  const present =
    existsSync('/usr/include/gloo/allreduce.h') &&
    ['g++', 'mpicxx', 'mpirun'].every((program) => spawnSync(program, ['--version']).status === 0);
  require(context, present, 'this machine lacks Gloo, Open MPI or a compiler (scripts/setup-system.sh installs them)');
}
