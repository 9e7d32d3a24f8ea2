/** The three instructions as functions, so that a program reads like a sentence. */
import type { Instruction, Rank } from './program.ts';

export function send(to: Rank): Instruction {
  return { do: 'send', to };
}

export function reduce(from: Rank): Instruction {
  return { do: 'reduce', from };
}

export function replace(from: Rank): Instruction {
  return { do: 'replace', from };
}
