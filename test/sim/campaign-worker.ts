/** One core's share of a campaign. */
import { parentPort, workerData } from 'node:worker_threads';
import { countSteps } from '../../src/lifecycle.ts';
import type { CampaignMessage, CampaignTask, Totals } from './campaign.ts';
import { drawScenario } from './scenario.ts';
import { shrink } from './shrink.ts';
import { simulate } from './world.ts';

/** So many failures are shrunk and told; what comes after them is likely the same. */
const MAX_FAILURES = 5;
const REPORT_EVERY = 10;

const { first, stride, end, faults, onlyFirst } = workerData as CampaignTask; // set by runCampaign
const port = parentPort!; // this file only runs as a worker
const post = (message: CampaignMessage) => port.postMessage(message);

const totals: Totals = {
  runs: 0,
  events: 0,
  virtualMs: 0,
  succeeded: 0,
  failed: 0,
  retried: 0,
  salvaged: 0,
  excluded: 0,
  synced: 0,
  healed: 0,
};
let failures = 0;
// Storms make many errors, and where they were made is only looked at when one is a defect.
const { stackTraceLimit } = Error;
Error.stackTraceLimit = 0;
for (let seed = first; seed < end && failures < MAX_FAILURES; seed += stride) {
  const scenario = drawScenario(seed, faults ?? undefined);
  const outcome = await simulate(scenario);
  totals.runs += 1;
  totals.events += outcome.events;
  totals.virtualMs += outcome.virtualMs;
  totals.succeeded += outcome.succeeded;
  totals.failed += outcome.failed;
  totals.retried += outcome.retried;
  totals.salvaged += outcome.salvaged;
  totals.excluded += outcome.excluded;
  totals.synced += outcome.synced;
  totals.healed += outcome.healed;
  if (outcome.failure !== null) {
    failures += 1;
    const smallest = onlyFirst ? scenario : await shrink(scenario, outcome.failure);
    Error.stackTraceLimit = stackTraceLimit;
    const again = await simulate(smallest);
    Error.stackTraceLimit = 0;
    post({
      type: 'failure',
      failure: { seed, failure: again.failure ?? outcome.failure, smallest, trace: again.trace },
    });
  }
  if (totals.runs % REPORT_EVERY === 0) post({ type: 'progress', totals, steps: countSteps() });
}
post({ type: 'progress', totals, steps: countSteps() });
