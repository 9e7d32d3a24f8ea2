/**
 * Leaders of coordinators that fail, again and again, with a real etcd: how long the peers wait, and whether all that must hold does.
 *
 *     npm run failover -- --fault kill --runs 20        kill, stop, or term; lease 3 s unless --lease says otherwise
 *     npm run failover -- --fault stop --runs 10 --rounds 10 --at-once 3      a hundred stops, ten in each deployment
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { Etcd } from '../harness/etcd.ts';
import { Deployment, judge, recoveryOf } from './deployment.ts';

interface Options {
  readonly fault: 'kill' | 'stop' | 'term';
  readonly runs: string;
  readonly lease: string;
  readonly peers: string;
  readonly bound: string;
  readonly rounds: string;
  readonly atOnce: string;
}

const PATIENCE_MS = 30_000;

/** One failure of the leader. @returns when it was (milliseconds since 1970) */
async function fail(deployment: Deployment, { fault }: Options): Promise<number> {
  const { leader } = deployment;
  const term = leader.terms.at(-1)!;
  const at = Date.now();
  if (fault === 'kill') await leader.daemon.kill();
  else leader.daemon.signal(fault === 'stop' ? 'SIGSTOP' : 'SIGTERM');
  await deployment.ledAfter(term, PATIENCE_MS);
  await deployment.callsMade(3);
  if (fault === 'stop') {
    leader.daemon.signal('SIGCONT');
    await delay(500); // in which it could say something wrong
    for (const end = Date.now() + PATIENCE_MS; leader.leads && Date.now() < end; ) await delay(20);
  }
  return at;
}

/** One deployment, whose leaders fail: how long the peers waited each time (ms), and what was wrong. */
async function run(
  etcd: Etcd,
  options: Options,
): Promise<{ readonly waitsMs: readonly number[]; readonly faults: readonly string[]; readonly story: string }> {
  const deployment = await Deployment.start([etcd.urls, etcd.urls], Number(options.lease));
  try {
    await deployment.train(Number(options.peers));
    const times: number[] = [];
    for (let round = 1; round <= Number(options.rounds); round++) {
      // At any time of a lease's renewals.
      await delay(Math.random() * 1_000);
      times.push(await fail(deployment, options));
    }
    const histories = await deployment.stop();
    const faults = [...judge(histories), ...deployment.discords()];
    return { waitsMs: times.map((at) => recoveryOf(histories, at)), faults, story: deployment.story };
  } finally {
    await deployment[Symbol.asyncDispose]();
  }
}

async function main(options: Options): Promise<void> {
  if (options.fault !== 'stop' && options.rounds !== '1')
    throw new Error('Only leaders that were stopped come back: with another --fault there is one round.');
  const etcd = await Etcd.start(3, { deadlineMs: 3_600_000 });
  const waits: number[] = [];
  let bad = 0;
  let begun = 0;
  const work = async () => {
    while (begun < Number(options.runs)) {
      begun += 1;
      const number = begun;
      const { waitsMs, faults, story } = await run(etcd, options);
      waits.push(...waitsMs);
      const late = waitsMs.filter((waitedMs) => waitedMs > Number(options.bound)).length;
      bad += faults.length > 0 ? waitsMs.length : late;
      const isLate = late > 0 ? ' LATE' : '';
      console.log(`run ${number}: next call after ${waitsMs.join(', ')} ms${isLate} ${faults.join('; ')}`);
      if (faults.length > 0) console.log(story);
    }
  };
  try {
    await Promise.all(Array.from({ length: Number(options.atOnce) }, work));
  } finally {
    await etcd[Symbol.asyncDispose]();
  }
  waits.sort((left, right) => left - right);
  const median = waits[Math.floor(waits.length / 2)];
  console.log(
    `${options.fault}: ${waits.length - bad} of ${waits.length} good; median ${median} ms, longest ${waits.at(-1)} ms`,
  );
  process.exit(bad === 0 ? 0 : 1);
}

await new Command('failover')
  .addOption(
    new Option('--fault <fault>', 'what happens to the leader').choices(['kill', 'stop', 'term']).default('kill'),
  )
  .option('--runs <n>', 'how often', '20')
  .option('--lease <ms>', 'of the leader', '3000')
  .option('--peers <n>', 'how many train', '3')
  .option('--rounds <n>', 'with stop: failures in each run, one after the other', '1')
  .option('--at-once <n>', 'runs at the same time', '1')
  .option('--bound <ms>', 'the next call must be over within', '6000')
  .action(main)
  .parseAsync();
