import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ArgumentError } from '../../src/errors.ts';
import {
  DEFAULT_PORT,
  formatTcpAddress,
  isLoopback,
  originOf,
  parseCoordinatorAddress,
  parseTcpAddress,
  shortcutOf,
} from '../../src/transport/address.ts';

describe('coordinator addresses', () => {
  test.each([
    ['tcp://127.0.0.1:7400', '127.0.0.1', 7400],
    ['tcp://example.org:1', 'example.org', 1],
    ['example.org:65535', 'example.org', 65_535],
    ['localhost', 'localhost', DEFAULT_PORT],
    ['tcp://my-host_2.internal', 'my-host_2.internal', DEFAULT_PORT],
    ['tcp://[::1]:7400', '::1', 7400],
    ['[2001:DB8::7]', '2001:DB8::7', DEFAULT_PORT],
    ['[::ffff:10.0.0.1]:80', '::ffff:10.0.0.1', 80],
    ['tcp://[fe80::1%2]:7400', 'fe80::1%2', 7400],
    ['tcp://[fe80::1%eth0.7]:7400', 'fe80::1%eth0.7', 7400],
  ])('%s is read', (text, host, port) => {
    expect(parseTcpAddress(text)).toEqual({ kind: 'tcp', host, port });
  });

  test.each([
    '',
    'tcp://',
    ':7400',
    'http://example.org:7400',
    'tcp://example.org:7400/path',
    'tcp://user@host:1:2',
    'example.org:',
    'example.org:0',
    'example.org:65536',
    'example.org:123456',
    'example.org:seven',
    'two words:7400',
    ' example.org',
    '::1',
    '::1:7400',
    '[::1',
    '::1]:7400',
    '[]:7400',
    '[example.org]:7400',
    '[::1]7400',
    'example.org\n:7400',
  ])('%j is refused, with the text and an example', (text) => {
    expect(() => parseTcpAddress(text)).toThrow(ArgumentError);
    expect(() => parseTcpAddress(text)).toThrow(JSON.stringify(text));
    expect(() => parseTcpAddress(text)).toThrow('tcp://127.0.0.1:7400');
  });

  test('what is formatted is read as the same address', () => {
    const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
    fc.assert(
      fc.property(host, fc.integer({ min: 1, max: 65_535 }), (name, port) => {
        const address = { kind: 'tcp', host: name, port } as const;
        expect(parseTcpAddress(formatTcpAddress(address))).toEqual(address);
      }),
    );
  });

  test('IPv6 is written in brackets', () => {
    expect(formatTcpAddress({ kind: 'tcp', host: '::1', port: 7400 })).toBe('tcp://[::1]:7400');
    expect(formatTcpAddress({ kind: 'tcp', host: '10.0.0.1', port: 7400 })).toBe('tcp://10.0.0.1:7400');
  });

  test('only TCP addresses can be written', () => {
    expect(() => formatTcpAddress({ kind: 'unix', path: '/tmp/skein.sock' })).toThrow(ArgumentError);
    expect(() => formatTcpAddress({ kind: 'memory', name: 'b' })).toThrow('not on memory');
  });
});

test.each(['127.0.0.1', '127.8.9.10', '::1', 'localhost', '::ffff:127.0.0.1'])('%s is this machine', (host) => {
  expect(isLoopback(host)).toBe(true);
  expect(originOf(host)).toBeNull();
});

test.each(['10.0.0.1', '0.0.0.0', '::', '127.evil.example', '127.0.0.1.example', 'machine-7', '', '::ffff:10.0.0.1'])(
  '%j is another machine, or may be',
  (host) => {
    expect(isLoopback(host)).toBe(false);
  },
);

test.each([
  ['10.0.0.1', '10.0.0.1'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8::7', '2001:db8:0:0::/64'],
  ['2001:db8:1:2:3::', '2001:db8:1:2::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['::2', '0:0:0:0::/64'],
])('connections from %s count for %s', (host, origin) => {
  expect(originOf(host)).toBe(origin);
});

test('only a coordinator on loopback has a shortcut, of its own for each address', () => {
  const shortcuts = ['127.0.0.1', '::1'].map((host) => shortcutOf({ kind: 'tcp', host, port: 7400 }));
  for (const shortcut of shortcuts)
    expect(shortcut).toMatchObject({ kind: 'unix', path: expect.stringMatching(/^\0/) });
  expect(shortcuts[0]).not.toEqual(shortcuts[1]);
  expect(shortcutOf({ kind: 'tcp', host: '10.0.0.1', port: 7400 })).toBeNull();
  expect(shortcutOf({ kind: 'memory', name: '127.0.0.1' })).toBeNull();
});

describe("coordinators' HTTP ports", () => {
  test.each([
    ['ws://127.0.0.1:7401', 'ws://127.0.0.1:7401/'],
    ['ws://[::1]:7401', 'ws://[::1]:7401/'],
    ['wss://runs.example', 'wss://runs.example/'],
    ['wss://example.org/skein', 'wss://example.org/skein'],
  ])('%s is read', (text, url) => {
    expect(parseCoordinatorAddress(text)).toEqual({ kind: 'ws', url });
  });

  test.each(['ws://', 'ws:', 'wss://exa mple', 'ws://host:99999', 'ws://user:secret@host', 'ws://host/#run'])(
    '%j is refused with an example',
    (text) => {
      expect(() => parseCoordinatorAddress(text)).toThrow(ArgumentError);
      expect(() => parseCoordinatorAddress(text)).toThrow(/write ws:\/\/host:port/);
    },
  );

  test('any other address is read as one of TCP', () => {
    expect(parseCoordinatorAddress('tcp://127.0.0.1:7400')).toEqual(parseTcpAddress('tcp://127.0.0.1:7400'));
    expect(() => parseCoordinatorAddress('http://127.0.0.1:7401')).toThrow(ArgumentError);
  });
});
