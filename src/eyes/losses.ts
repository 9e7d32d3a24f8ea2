/** Why peers are lost, in few words: what can be counted, and is the same in every run. */

export const LOSS_CAUSES = ['left', 'closed', 'silent', 'away', 'dismissed', 'protocol', 'behind', 'other'] as const;

/**
 * `left`: in good order. `closed`: its connections closed, as when its process ends. `silent`: no sign of life. `away`: its way to
 * the coordinator broke, and it came back too late or never. `behind`: nobody remembered what it had missed.
 */
export type LossCause = (typeof LOSS_CAUSES)[number];

/** As `membership/coordinator.ts` and its parts word them. */
const WORDS: readonly (readonly [RegExp, LossCause])[] = [
  [/^left$/, 'left'],
  [/^its connections closed/, 'closed'],
  [/^it gave no sign of life/, 'silent'],
  [/did not come back/, 'away'],
  [/while (?:it|this peer) was away$/, 'away'],
  [/^it was dismissed/, 'dismissed'],
  [/^it broke the protocol/, 'protocol'],
  [/^it was too far behind/, 'behind'],
];

export function causeOf(reason: string): LossCause {
  return WORDS.find(([pattern]) => pattern.test(reason))?.[1] ?? 'other';
}
