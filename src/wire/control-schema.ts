/** Schemas of control messages: one of several types, of which some may be long. */
import * as v from 'valibot';
import type { LongMessage } from './pages.ts';

/** `long`: what of it may take several frames. */
export interface ControlSchema<M> extends v.GenericSchema<unknown, M> {
  readonly long: readonly LongMessage[];
}

interface TypedOption<M> extends v.GenericSchema<unknown, M> {
  readonly entries: { readonly type: { readonly literal: string } };
}

/** A variant that goes straight to the option of a message's type: to try one after the other costs more than all the rest. */
export function byType<M>(
  variant: v.GenericSchema<unknown, M> & { readonly options: readonly TypedOption<M>[] },
  long: readonly LongMessage[],
): ControlSchema<M> {
  const options = new Map<unknown, v.GenericSchema<unknown, M>>();
  for (const option of variant.options) options.set(option.entries.type.literal, option);
  const typeOf = (input: unknown) => (typeof input === 'object' && input !== null && 'type' in input ? input.type : '');
  return Object.assign(
    v.lazy((input) => options.get(typeOf(input)) ?? variant),
    { long },
  );
}
