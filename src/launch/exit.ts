/** How a process ended, and the exit code that says so to a shell. */
import { constants } from 'node:os';

/** As Node reports it: one of the two is null. */
export interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = constants.signals;

/** 128 + the signal's number, as shells have it. */
export function exitCodeOfSignal(signal: string): number {
  return 128 + (SIGNAL_NUMBERS[signal] ?? 0);
}

export function exitCode(exit: Exit): number {
  if (exit.signal !== null) return exitCodeOfSignal(exit.signal);
  return exit.code ?? 1;
}

/** The exit code, or the name of the signal. */
export function exitText({ code, signal }: Exit): number | string {
  return signal ?? code ?? 1;
}

/** For messages: `was killed by SIGKILL`. */
export function describeExit(exit: Exit): string {
  return exit.signal !== null ? `was killed by ${exit.signal}` : `ended with exit code ${exit.code ?? 1}`;
}
