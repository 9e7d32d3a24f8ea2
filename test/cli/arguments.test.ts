/** Values as they come from a command line. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { address, nonEmpty, seconds, wholeNumber } from '../../src/cli/arguments.ts';
import { parseTcpAddress } from '../../src/transport/address.ts';

describe('a whole number', () => {
  const parse = wholeNumber(1, 1024);

  it.each([
    ['1', 1],
    ['1024', 1024],
    ['007', 7],
  ])('%s', (text, value) => {
    expect(parse(text)).toBe(value);
  });

  it.each(['0', '1025', '-1', '+1', '1.5', '1e2', '0x10', ' 1', '1 ', '', 'four', '9'.repeat(400)])(
    'not %j',
    (text) => {
      expect(() => parse(text)).toThrow('Give a whole number from 1 to 1024.');
    },
  );
});

describe('seconds', () => {
  it.each([
    ['0', 0],
    ['10', 10_000],
    ['0.5', 500],
    ['86400', 86_400_000],
  ])('%s', (text, milliseconds) => {
    expect(seconds(text)).toBe(milliseconds);
  });

  it.each(['-1', '1e3', '.5', '5.', '86401', '', '10s', 'Infinity', 'NaN'])('not %j', (text) => {
    expect(() => seconds(text)).toThrow('Give a number of seconds');
  });
});

describe('the address of a coordinator', () => {
  it.each(['tcp://127.0.0.1:7400', 'tcp://[::1]:1', 'tcp://first.example:65535', 'tcp://first:07400'])('%s', (text) => {
    expect(address(text)).toBe(text);
  });

  it.each([
    '',
    'tcp://',
    'tcp://host',
    'tcp://host:0',
    'tcp://host:65536',
    'tcp://::1:7400',
    'tcp://ho st:1',
    'tcp://host:1/x',
    'http://host:1',
    'host:1',
    'tcp://host:1\n',
  ])('not %j', (text) => {
    expect(() => address(text)).toThrow('Give an address like tcp://127.0.0.1:7400');
  });

  it('is one that join() takes as well, so that no mistake is found only by the processes', () => {
    const anyHost = fc.oneof(
      fc.domain(),
      fc.ipV4(),
      fc.ipV6().map((host) => `[${host}]`),
    );
    fc.assert(
      fc.property(anyHost, fc.integer({ min: 1, max: 65_535 }), (host, port) => {
        const text = address(`tcp://${host}:${port}`);
        expect(parseTcpAddress(text)).toEqual({ kind: 'tcp', host: host.replace(/^\[|\]$/g, ''), port });
      }),
    );
  });
});

it('an empty text is refused', () => {
  expect(nonEmpty('x')).toBe('x');
  expect(() => nonEmpty('')).toThrow('It must not be empty.');
});
