/** The example of a tab that trains along with processes, run as a user would. */

import { fileURLToPath } from 'node:url';
import { beforeEach, expect, test } from 'vitest';
import { Command } from '../cli/command.ts';
import { requireChromium } from '../harness/requirements.ts';

const SCRIPT = fileURLToPath(new URL('../../dist/examples/browser/run.js', import.meta.url));

beforeEach((context) => requireChromium(context));

test('a tab trains on digits with three processes, which go on when it is closed', async () => {
  await using command = new Command([SCRIPT], { EXAMPLE_STEPS: '60' });
  expect(await command.ended, command.stderr).toBe(0);
  expect(command.stdout).toMatch(/The tab is closed after its step \d+\./);
  expect(command.stdout).toMatch(/✓ The tab trained along and went, and the processes hold the same weights\./);
  expect(command.stderr).toBe('');
});
