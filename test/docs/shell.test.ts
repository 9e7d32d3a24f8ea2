/** The judge of shell commands that are not run: it lets pass what is right, and sees what is not. */
import { describe, expect, it } from 'vitest';
import { CommandCheck } from './shell.ts';

const commands = new CommandCheck();

describe('shell commands', () => {
  it.each([
    'npm ci && npm test',
    'SKEIN_TOKEN=$(openssl rand -hex 32) npx skein coordinator --host 0.0.0.0   # a comment',
    'npx skein launch -n 2 --restart -- node train.js --steps 1000',
    'skein help launch',
    'curl -H "Authorization: Bearer $(npx skein token --role admin)" -d \'{"peerId":"p3"}\' https://host:7401/api/dismiss',
    'kubectl apply -f secret.yaml -f coordinator.yaml',
  ])('pass: %s', async (script) => {
    expect(await commands.check(script, ['train.js'])).toEqual([]);
  });

  it.each([
    ['npm run no-such-script', 'package.json has no such script'],
    ['npx skein coordinator --hots 0.0.0.0', "unknown option '--hots'"],
    ['npx skein coordinator --port 99999', 'whole number from 0 to 65535'],
    ['npx skein lunch -n 2 -- node train.js', "unknown command 'lunch'"],
    ['npx skein launch -n 2 -- node other.js', 'there is no such file'],
    ['SKEIN_TOKN=1 npx skein coordinator', 'nothing reads SKEIN_TOKN'],
    ['kubectl apply -f other.yaml', 'there is no other.yaml'],
    ['curl https://host:7401/api/other', 'nothing serves /api/other'],
    ['true', 'it calls nothing'],
  ])('are refused: %s', async (script, reason) => {
    expect((await commands.check(script, ['train.js'])).join()).toContain(reason);
  });

  it.each(['rm -rf train.js', 'if npm ci; then'])('are refused by bash: %s', async (script) => {
    await expect(commands.check(script, [])).rejects.toThrow('bash ended with');
  });
});
