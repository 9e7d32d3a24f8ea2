/** A peer in a process of its own: runs the functions that a test sends it, and reports what they return or throw. */
import * as diloco from '../../src/diloco/index.ts';
import type { Group } from '../../src/index.ts';
import * as skein from '../../src/index.ts';
import * as notes from '../../src/notes/index.ts';

/** What a function that runs in a peer process gets. It must refer to nothing else, because only its text crosses. */
export interface PeerScope {
  readonly skein: typeof skein;
  readonly diloco: typeof diloco;
  readonly notes: typeof notes;
  /** Kept from one function to the next. */
  readonly state: { group?: Group; [name: string]: unknown };
  /** Tells the test something while the function runs. */
  readonly tell: (text: string) => void;
}

export interface RunRequest {
  readonly run: number;
  readonly source: string;
  readonly argument: unknown;
}

export interface PlainFailure {
  readonly name: string;
  readonly code: string | undefined;
  readonly message: string;
  readonly peer: string | undefined;
}

export type PeerReport =
  | { readonly type: 'told'; readonly text: string }
  | { readonly type: 'returned'; readonly run: number; readonly value: unknown }
  | { readonly type: 'threw'; readonly run: number; readonly error: PlainFailure };

const state: PeerScope['state'] = {};

function report(message: PeerReport): void {
  process.send?.(message);
}

process.on('message', (request: RunRequest) => {
  const scope: PeerScope = { skein, diloco, notes, state, tell: (text) => report({ type: 'told', text }) };
  // The text comes from the test that started this process.
  const body = new Function('scope', 'argument', `return (${request.source})(scope, argument);`);
  Promise.resolve()
    .then(() => body(scope, request.argument))
    .then(
      (value: unknown) => report({ type: 'returned', run: request.run, value }),
      (error: Error & { code?: string; peer?: string }) => {
        const { name, code, message, peer } = error;
        report({ type: 'threw', run: request.run, error: { name, code, message, peer } });
      },
    );
});

process.on('disconnect', () => process.exit(0));
