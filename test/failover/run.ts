/**
 * Leaders of coordinators that fail, again and again, with a real etcd: how long the peers wait, and whether all that must hold does.
 *
 *     npm run failover -- --fault kill --runs 20        kill, stop, or term; lease 3 s unless --lease says otherwise
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
}

const PATIENCE_MS = 30_000;

/** One failure of a leader: how long until the next call was over (ms), and what was wrong. */
async function fail(
  deployment: Deployment,
  { fault }: Options,
): Promise<{ readonly waitedMs: number; readonly faults: readonly string[] }> {
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
  }
  const histories = await deployment.stop();
  return { waitedMs: recoveryOf(histories, at), faults: [...judge(histories), ...deployment.discords()] };
}

async function main(options: Options): Promise<void> {
  const etcd = await Etcd.start(3, { deadlineMs: 3_600_000 });
  const waits: number[] = [];
  let bad = 0;
  try {
    for (let run = 1; run <= Number(options.runs); run++) {
      const deployment = await Deployment.start([etcd.urls, etcd.urls], Number(options.lease));
      try {
        await deployment.train(Number(options.peers));
        // At any time of a lease's renewals.
        await delay(Math.random() * 1_000);
        const { waitedMs, faults } = await fail(deployment, options);
        waits.push(waitedMs);
        const isLate = waitedMs > Number(options.bound);
        if (faults.length > 0 || isLate) bad += 1;
        console.log(`run ${run}: next call after ${waitedMs} ms${isLate ? ' LATE' : ''} ${faults.join('; ')}`);
        if (faults.length > 0) console.log(deployment.story);
      } finally {
        await deployment[Symbol.asyncDispose]();
      }
    }
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
  .option('--bound <ms>', 'the next call must be over within', '6000')
  .action(main)
  .parseAsync();
