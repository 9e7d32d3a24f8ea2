/** Certificates for tests, made by the `openssl` program: an authority, and what it signs. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Certificates } from '../../src/transport/tls.ts';

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
const DAYS = ['-days', '2'];

/** Runs commands in a directory that is removed afterwards. */
function inDirectory<T>(body: (openssl: (...args: string[]) => void, file: (name: string) => string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), 'skein-certificates-'));
  try {
    return body(
      (...args) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' }),
      (name) => join(directory, name),
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export class TestAuthority {
  readonly ca: string;
  readonly #key: string;

  constructor() {
    [this.ca, this.#key] = inDirectory((openssl, file) => {
      openssl('req', '-x509', ...KEY, ...DAYS, '-keyout', 'key', '-out', 'cert', '-subj', '/CN=authority of a test');
      return [readFileSync(file('cert'), 'utf8'), readFileSync(file('key'), 'utf8')];
    });
  }

  /** A certificate for an IP address, with its key, and this authority to trust. */
  issue(ip: string, subject = '/CN=somebody'): Record<keyof Certificates, string> {
    return inDirectory((openssl, file) => {
      writeFileSync(file('ca'), this.ca);
      writeFileSync(file('ca-key'), this.#key);
      writeFileSync(file('extensions'), `subjectAltName=IP:${ip}\n`);
      openssl('req', ...KEY, '-keyout', 'key', '-out', 'request', '-subj', subject);
      const authority = ['-CA', 'ca', '-CAkey', 'ca-key', '-CAcreateserial'];
      openssl('x509', '-req', '-in', 'request', ...authority, ...DAYS, '-extfile', 'extensions', '-out', 'cert');
      return { cert: readFileSync(file('cert'), 'utf8'), key: readFileSync(file('key'), 'utf8'), ca: this.ca };
    });
  }
}
