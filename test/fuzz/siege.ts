/** An assault while the good peers reduce without a pause, with a look at all processes after a warm-up and at the end. */
import { Random } from '../sim/random.ts';
import { type Assault, CALLS_LIED_ABOUT } from './assault.ts';
import type { Garrison } from './garrison.ts';
import { until } from './processes.ts';

/** How long the coordinator may take to hear of it (ms). */
const READY_MS = 10_000;

interface SiegePlan {
  readonly seed: number;
  /** Damaged messages and frames to be sent. */
  readonly frames: number;
  /** So many of them before the first look. */
  readonly warmUp: number;
  readonly onProgress?: (sent: number) => void;
}

interface TreasonPlan extends Pick<SiegePlan, 'seed' | 'onProgress'> {
  /** Hostile peers that become members. */
  readonly waves: number;
}

function told(seed: number, sent: number, error: unknown): Error {
  const text = error instanceof Error ? error.message : String(error);
  return new Error(`SKEIN_FUZZ_SEED=${seed}, after ${sent} messages and frames: ${text}`, { cause: error });
}

/** Reduces until told to stop; throws what went wrong. */
function reducing(garrison: Garrison): { stop(): Promise<number> } {
  let going = true;
  const loop = async () => {
    let checked = 0;
    while (going) checked += (await garrison.batch()).checked;
    return checked;
  };
  const running = loop();
  running.catch(() => {}); // told by `stop`
  return {
    stop: () => {
      going = false;
      return running;
    },
  };
}

/** @returns what became of it, in a line */
export async function siege(garrison: Garrison, assault: Assault, plan: SiegePlan): Promise<string> {
  const { seed, frames, warmUp } = plan;
  const random = new Random(seed);
  let checked = 0;
  const fight = async (upTo: number) => {
    const good = reducing(garrison);
    try {
      while (assault.sent < upTo) {
        await assault.wave(random);
        plan.onProgress?.(assault.sent);
      }
    } finally {
      checked += await good.stop();
    }
  };
  try {
    const quiet = garrison.look();
    await fight(warmUp);
    await garrison.check(quiet.map((one) => ({ ...one, residentBytes: Number.POSITIVE_INFINITY })));
    const warm = garrison.look();
    await fight(frames);
    return `${await garrison.check(warm)}; ${checked} results checked meanwhile;`;
  } catch (error) {
    throw told(seed, assault.sent, error);
  }
}

/** Hostile peers become members, one after the other. */
export async function treason(
  garrison: Garrison,
  assault: Assault,
  { seed, waves, onProgress }: TreasonPlan,
): Promise<string> {
  const random = new Random(seed);
  let checked = 0;
  let failed = 0;
  try {
    await garrison.batch();
    const quiet = garrison.look();
    for (let wave = 0; wave < waves; wave++) {
      // The good peers pass a boundary, which lets it in, and go on reducing with it while it fires and vanishes.
      const batches: Promise<void>[] = [];
      await assault.treason(random, async () => {
        await until(
          () => garrison.status(),
          ({ ready }) => ready > 0,
          'a hostile peer that is ready',
          READY_MS,
        );
        const batch = garrison.batch(true).then((result) => {
          checked += result.checked;
          failed += result.failed;
        });
        batch.catch(() => {});
        batches.push(batch);
      });
      await Promise.all(batches);
      onProgress?.(assault.sent);
    }
    // The last of them may have condemned calls that come after it has gone.
    for (let call = 1; call < CALLS_LIED_ABOUT; call++) failed += (await garrison.batch(true)).failed;
    return `${await garrison.check(quiet)}; ${checked} results checked, ${failed} calls failed as they may;`;
  } catch (error) {
    throw told(seed, assault.sent, error);
  }
}
