/**
 * `npm run bench:churn`: what a death and an arrival cost those who stay. Members all-reduce without pause; again and
 * again one of them is killed in the middle of it, and a fresh process takes its place.
 *
 *     recovery    from SIGKILL to the next result that the slowest survivor holds
 *     admission   how much longer a boundary takes that lets a newcomer in, on the slowest member
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command } from 'commander';
import { formatBytes, formatSeconds, median } from '../src/benchmark/statistics.ts';
import { startCoordinator } from './harness/coordinator.ts';
import { describeMachine } from './harness/machine.ts';
import { Member } from './harness/member.ts';
import type { ChurnTask } from './peers/churn-peer.ts';

const MIB = 1024 * 1024;
const RESULTS = fileURLToPath(new URL('../../bench/results/', import.meta.url));

/** Steps in peace before a kill: the newcomer's compiler has seen the hot paths then. */
const SETTLING_STEPS = 25;

/** Of those, the last ones count as undisturbed. */
const MEASURED_STEPS = 8;

interface Options {
  readonly rounds: string;
  readonly world: string;
  readonly size: string;
}

interface Figures {
  readonly allReduce: number[];
  readonly recovery: number[];
  readonly boundary: number[];
  readonly admission: number[];
  /** The step that follows, whose new member's code is cold. */
  readonly firstStep: number[];
}

/** One kill and one arrival. */
async function round(members: Member[], task: ChurnTask, share: number, figures: Figures): Promise<void> {
  await Promise.all(members.map((member) => member.settled(members.length, SETTLING_STEPS)));
  const peace = members[0]!.steps.slice(-MEASURED_STEPS);
  figures.allReduce.push(median(peace.map((step) => step.end - step.admitted)));
  figures.boundary.push(median(peace.map((step) => step.admitted - step.start)));

  const victim = members.pop()!;
  const killed = await victim.dieAt(share);
  const survived = await Promise.all(members.map((member) => member.nextAfter(killed, members.length)));
  figures.recovery.push(Math.max(...survived.map((step) => step.end - killed)));

  const marks = members.map((member) => member.steps.length);
  const newcomer = new Member(task);
  const joins = members.map((member, index) => () => member.steps.slice(marks[index]).find((step) => step.joined > 0));
  await Promise.all(
    members.map((member, index) => member.until('the newcomer is in', () => joins[index]!() !== undefined)),
  );
  const steps = joins.map((join) => join()!);
  figures.admission.push(Math.max(...steps.map((step) => step.admitted - step.start)));
  figures.firstStep.push(Math.max(...steps.map((step) => step.end - step.admitted)));
  members.push(newcomer);
}

async function main(options: Options): Promise<void> {
  const rounds = Number(options.rounds);
  const worldSize = Number(options.world);
  const bytes = Number(options.size) * MIB;
  const { child: coordinator, address } = await startCoordinator({ lostAfterMs: 20_000 });
  const members: Member[] = [];
  try {
    const founder: ChurnTask = { address, startWorldSize: worldSize, bytes };
    for (let index = 0; index < worldSize; index++) members.push(new Member(founder));
    const figures: Figures = { allReduce: [], recovery: [], boundary: [], admission: [], firstStep: [] };
    for (let index = 0; index < rounds; index++) {
      // Spread over the middle half of an all-reduce.
      const share = 0.25 + (0.5 * (index + 0.5)) / rounds;
      await round(members, { ...founder, startWorldSize: 1 }, share, figures);
      const [recovery, admission] = [figures.recovery.at(-1)!, figures.admission.at(-1)!];
      process.stderr.write(
        `round ${index + 1}/${rounds}: all-reduce ${formatSeconds(figures.allReduce.at(-1)!)}, recovery ${formatSeconds(recovery)}, admission ${formatSeconds(admission)}\n`,
      );
    }
    report(figures, worldSize, bytes);
  } finally {
    for (const member of members) member.child.kill('SIGKILL');
    coordinator.kill();
  }
}

function report(figures: Figures, worldSize: number, bytes: number): void {
  const allReduce = median(figures.allReduce);
  const recovery = median(figures.recovery);
  const admission = median(figures.admission) - median(figures.boundary);
  const bars = [
    {
      what: 'SIGKILL to the survivors’ next result',
      wanted: 1.5 * allReduce + 0.1,
      measured: recovery,
      worst: Math.max(...figures.recovery),
    },
    {
      what: 'delay of the members by a newcomer’s admission',
      wanted: 0.005,
      measured: admission,
      worst: Math.max(...figures.admission) - median(figures.boundary),
    },
  ];
  const table = new Table({ head: ['bar', 'wanted ≤', 'median', 'worst', ''], style: { head: [], border: [] } });
  for (const { what, wanted, measured, worst } of bars) {
    const verdict = measured <= wanted ? 'met' : 'NOT MET';
    table.push([what, formatSeconds(wanted), formatSeconds(measured), formatSeconds(worst), verdict]);
  }
  const rounds = figures.recovery.length;
  console.log(`\n${worldSize} members, all-reduces of ${formatBytes(bytes)}, ${rounds} kills and ${rounds} arrivals.`);
  console.log(
    `Undisturbed all-reduce: ${formatSeconds(allReduce)}; boundary: ${formatSeconds(median(figures.boundary))}; first all-reduce with a newcomer: ${formatSeconds(median(figures.firstStep))}.`,
  );
  console.log(table.toString());
  mkdirSync(RESULTS, { recursive: true });
  const record = { machine: describeMachine(), date: new Date().toISOString(), worldSize, bytes, figures, bars };
  writeFileSync(join(RESULTS, 'churn.json'), `${JSON.stringify(record, null, 1)}\n`);
}

await new Command('bench:churn')
  .description('Measures what the death of a member and the admission of a newcomer cost those who stay.')
  .option('--rounds <n>', 'kills and arrivals', '20')
  .option('--world <n>', 'members', '4')
  .option('--size <MiB>', 'tensor size', '64')
  .action(main)
  .parseAsync();
