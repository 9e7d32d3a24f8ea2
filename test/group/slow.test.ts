import { expect, test } from 'vitest';
import { Members } from './members.ts';

// They wait, most of the time: both at once.
test.concurrent.each(['inline', 'worker'] as const)(
  'a member that comes late is named to all, and no other (%s)',
  { timeout: 30_000 },
  async (engine) => {
    await using members = await Members.form(3, { engine });
    const named: string[] = [];
    for (const group of members.groups)
      group.on('slow-peer', ({ peerId, waiting, waitedMs }) => {
        named.push(`${peerId} for ${waiting.length > 0}, ${waitedMs >= 500}`);
      });
    await members.all(async (group, rank) => {
      if (rank === 1) await new Promise((resolve) => setTimeout(resolve, 6_000));
      await group.allReduce(new Float32Array(300_000).fill(1), { algorithm: 'ring' });
    });
    const late = members.groups[1]!.peerId;
    expect(named).toEqual(Array.from({ length: 3 }, () => `${late} for true, true`));
  },
);
