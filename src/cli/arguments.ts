/** Values as they come from a command line: checked, with an error that says what is accepted. */
import { InvalidArgumentError } from 'commander';

/** A parser for whole numbers from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`);
  };
}

/** Seconds, as milliseconds. */
export function seconds(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value <= 86_400) return value * 1000;
  throw new InvalidArgumentError('Give a number of seconds, for example 10 or 0.5.');
}

export function address(text: string): string {
  const port = Number(/^tcp:\/\/(?:\[[0-9a-fA-F:.]+\]|[^\s:/[\]]+):(\d{1,5})$/.exec(text)?.[1]);
  if (port >= 1 && port <= 65_535) return text;
  throw new InvalidArgumentError('Give an address like tcp://127.0.0.1:7400 or tcp://[::1]:7400.');
}

/** Of all coordinators that share a store. */
export function addresses(text: string): string {
  for (const one of text.split(',')) address(one);
  return text;
}

export function nonEmpty(text: string): string {
  if (text !== '') return text;
  throw new InvalidArgumentError('It must not be empty.');
}

export function httpAddress(text: string): string {
  if (/^https?:\/\//.test(text) && URL.canParse(text)) return text;
  throw new InvalidArgumentError('Give an address like http://127.0.0.1:7401 or https://host:7401.');
}
