/** `skein launch` with real processes: what they find, what is shown of them, how they end, and that none is left. */
import { Coordinator } from 'skein';
import { afterAll, describe, expect, test } from 'vitest';
import { Command } from './command.ts';
import { ScriptFolder } from './scripts.ts';

const scripts = new ScriptFolder();
afterAll(() => scripts.remove());

/** Launches processes of one script. */
function launch(options: readonly string[], script: string, environment: NodeJS.ProcessEnv = {}): Command {
  return Command.skein(['launch', ...options, '--', process.execPath, script], environment);
}

/** Adds up one number per process; says so on both outputs, the second time without a line feed. */
const SUM = scripts.write(`
  const group = await join();
  const tensor = Float32Array.of(index + 1);
  await group.allReduce(tensor);
  console.log(\`sum \${tensor[0]} of \${group.worldSize}\`);
  process.stderr.write('no line feed');
  await group.leave();
`);

describe('a run', () => {
  test('finds its coordinator, shows each line with the name of its process, and ends with 0', async () => {
    await using command = launch(['-n', '3'], SUM);
    expect(await command.ended).toBe(0);
    expect(command.lines).toEqual(['[peer 0] sum 6 of 3', '[peer 1] sum 6 of 3', '[peer 2] sum 6 of 3']);
    expect(command.stderr.split('\n').sort()).toEqual([
      '',
      '[peer 0] no line feed',
      '[peer 1] no line feed',
      '[peer 2] no line feed',
    ]);
    await command.leaves([]);
  });

  test("uses another coordinator where one is named, with the user's own token", async () => {
    const token = 'known-to-both';
    const coordinator = await Coordinator.listen({ port: 0, token });
    try {
      await using command = launch(['-n', '2', '--run', 'other', '--coordinator', coordinator.address], SUM, {
        SKEIN_TOKEN: token,
      });
      expect(await command.ended).toBe(0);
      expect(command.lines).toEqual(['[peer 0] sum 3 of 2', '[peer 1] sum 3 of 2']);
    } finally {
      await coordinator.close();
    }
  });

  test('gives the command all that stands after --, and each process its place', async () => {
    const script = scripts.write(`
      const { SKEIN_RUN, SKEIN_WORLD_SIZE, SKEIN_MIN_WORLD_SIZE } = process.env;
      const shown = [SKEIN_RUN, index, SKEIN_WORLD_SIZE, SKEIN_MIN_WORLD_SIZE, restarts, ...process.argv.slice(2)];
      console.log(JSON.stringify(shown));
    `);
    await using command = Command.skein(
      ['launch', '-n', '2', '--', process.execPath, script, '--help', '-n', '9', '--', 'two words', '$HOME'],
      { SKEIN_RUN: 'from-outside' },
    );
    expect(await command.ended).toBe(0);
    expect(command.lines).toEqual([
      '[peer 0] ["from-outside",0,"2","2",0,"--help","-n","9","--","two words","$HOME"]',
      '[peer 1] ["from-outside",1,"2","2",0,"--help","-n","9","--","two words","$HOME"]',
    ]);
  });

  test('never mixes the lines of its processes, and loses none', async () => {
    const script = scripts.write(`
      for (let line = 0; line < 500; line++) {
        const text = \`\${line} \${'x'.repeat((line * 37) % 800)} end\\n\`;
        const middle = (line * 13) % text.length;
        process.stdout.write(text.slice(0, middle));
        process.stdout.write(text.slice(middle));
      }
    `);
    await using command = launch(['-n', '3'], script);
    expect(await command.ended).toBe(0);
    const expected = Array.from({ length: 500 }, (_, line) => `${line} ${'x'.repeat((line * 37) % 800)} end`);
    const shown = command.stdout.split('\n');
    for (const index of [0, 1, 2]) {
      const prefix = `[peer ${index}] `;
      const own = shown.filter((line) => line.startsWith(prefix)).map((line) => line.slice(prefix.length));
      expect(own).toEqual(expected);
    }
    expect(shown).toHaveLength(3 * 500 + 1);
  });
});

describe('a failure', () => {
  test("stops the others, and its exit code is the launch's", async () => {
    const script = scripts.write(`
      const group = await join();
      process.on('SIGTERM', () => {
        console.log('asked to end');
        process.exit(3);
      });
      await group.barrier();
      if (index === 1) process.exit(7);
      stayAlive();
    `);
    // The grace period is longer than the test: who obeys is not waited for.
    await using command = launch(['-n', '3', '--grace', '100'], script);
    expect(await command.ended).toBe(7);
    expect(command.lines).toEqual(['[peer 0] asked to end', '[peer 2] asked to end']);
    expect(command.stderr).toBe('[skein] peer 1 ended with exit code 7: stopping the others\n');
    await command.leaves([]);
  });

  test('by a signal is told with 128 + its number, and takes the descendants of the process along', async () => {
    const script = scripts.write(`
      const { spawn } = await import('node:child_process');
      if (index === 0) {
        const descendant = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], { stdio: 'inherit' });
        console.log(\`descendant \${descendant.pid} of \${process.pid}\`);
      } else {
        console.log('ready');
      }
      stayAlive();
    `);
    await using command = launch(['-n', '2'], script);
    await command.says(/^\[peer 1\] ready$/);
    await command.says(/descendant/);
    const [, descendant, parent] = /descendant (\d+) of (\d+)/.exec(command.stdout) ?? [];
    expect(command.family()).toEqual(expect.arrayContaining([Number(descendant), Number(parent)]));
    process.kill(Number(parent), 'SIGKILL');
    expect(await command.ended).toBe(137);
    expect(command.stderr).toContain('peer 0 was killed by SIGKILL: stopping the others');
    await command.leaves([]);
  });

  test.each([
    ['no-such-command-of-skein', 127, 'there is no command "no-such-command-of-skein"'],
    ['/dev/null', 126, 'EACCES'],
  ])('to start %s ends with %i, and restarting is not tried', async (program, code, complaint) => {
    await using command = Command.skein(['launch', '-n', '2', '--restart', '--', program]);
    expect(await command.ended).toBe(code);
    expect(command.stderr).toContain(complaint);
    expect(command.stderr).not.toContain('restart 1 of');
    await command.leaves([]);
  });
});

describe('a signal to the launcher', () => {
  const PATIENT = scripts.write(`
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) {
      process.on(signal, () => {
        console.log(\`got \${signal}\`);
        process.exit(0);
      });
    }
    console.log('ready');
    stayAlive();
  `);

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const)('%s reaches all processes; the launch ends with %i after them', async (signal, code) => {
    await using command = launch(['-n', '3'], PATIENT);
    await command.says(/ready$/, 3);
    command.child.kill(signal);
    expect(await command.ended).toBe(code);
    expect(command.lines.filter((line) => line.includes('got'))).toEqual(
      [0, 1, 2].map((index) => `[peer ${index}] got ${signal}`),
    );
    await command.leaves([]);
  });

  test('kills those that do not obey within the grace period', async () => {
    const script = scripts.write(`
      process.on('SIGTERM', () => console.log('not yet'));
      console.log('ready');
      stayAlive();
    `);
    await using command = launch(['-n', '2', '--grace', '0.2'], script);
    await command.says(/ready$/, 2);
    command.child.kill('SIGTERM');
    expect(await command.ended).toBe(143);
    expect(command.lines.filter((line) => line.endsWith('not yet'))).toHaveLength(2);
    expect(command.stderr).toContain('2 still running after the grace period: killed');
    await command.leaves([]);
  });

  test('that it can not catch leaves nobody behind either', async () => {
    await using command = launch(['-n', '3'], PATIENT);
    await command.says(/ready$/, 3);
    expect(command.family().length).toBeGreaterThanOrEqual(3);
    command.child.kill('SIGKILL');
    await command.leaves([]);
    expect(await command.ended).toBe('SIGKILL');
  });

  test('comes from the pipe as well: a launch that nobody reads any more stops its processes', async () => {
    const script = scripts.write(`setInterval(() => console.log('still here'), 20);`);
    await using command = launch(['-n', '2'], script);
    await command.says(/still here/, 2);
    command.child.stdout.destroy();
    expect(await command.ended).toBe(141);
    await command.leaves([]);
  });
});

describe('--restart', () => {
  test('starts a killed process again, which joins the run that went on without it', async () => {
    const script = scripts.write(`
      const group = await join();
      console.log(\`life \${restarts} joined\`);
      for await (const step of group.steps({ until: 5_000 })) {
        // How many take part, and how many of them have been here before.
        const counts = Float32Array.of(1, restarts);
        if (index === 1 && restarts === 0 && step.index === 3) process.kill(process.pid, 'SIGKILL');
        const report = await group.allReduce(counts);
        if (counts[0] === 2) console.log('went on with two');
        if (counts[1] > 0) {
          console.log(\`together again: \${counts[0]} of \${report.worldSize}\`);
          break;
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await group.leave();
    `);
    await using command = launch(['-n', '3', '--restart'], script);
    expect(await command.ended).toBe(0);
    const unique = [...new Set(command.lines)];
    expect(unique).toEqual([
      '[peer 0] life 0 joined',
      '[peer 0] together again: 3 of 3',
      '[peer 0] went on with two',
      '[peer 1] life 0 joined',
      '[peer 1] life 1 joined',
      '[peer 1] together again: 3 of 3',
      '[peer 2] life 0 joined',
      '[peer 2] together again: 3 of 3',
      '[peer 2] went on with two',
    ]);
    expect(command.stderr).toBe('[skein] peer 1 was killed by SIGKILL: restart 1 of 3 in 100 ms\n');
    await command.leaves([]);
  });

  test('gives up after --max-restarts, with the exit code of the last life', async () => {
    const script = scripts.write('if (index === 1) process.exit(20 + restarts); stayAlive();');
    await using command = launch(['-n', '2', '--restart', '--max-restarts', '2'], script);
    expect(await command.ended).toBe(22);
    expect(command.stderr.split('\n')).toEqual([
      '[skein] peer 1 ended with exit code 20: restart 1 of 2 in 100 ms',
      '[skein] peer 1 ended with exit code 21: restart 2 of 2 in 200 ms',
      '[skein] peer 1 ended with exit code 22 after 2 restarts: stopping the others',
      '',
    ]);
    await command.leaves([]);
  });
});
