/** Finds the prices with which the simulation of scale explains what was measured, and says what it makes of other runs. */
import { oneHost, type Prices } from '../../test/sim/scale/costs.ts';
import { Swarm } from '../../test/sim/scale/swarm.ts';

/** How long an all-reduce took, on the slowest rank. */
export interface Observation {
  readonly worldSize: number;
  readonly bytes: number;
  readonly seconds: number;
}

type Fitted = Exclude<keyof Prices, 'handshakeSeconds'>;

const FITTED: readonly Fitted[] = [
  'byteSeconds',
  'coldByteSeconds',
  'wakeSeconds',
  'switchSeconds',
  'frameSeconds',
  'callSeconds',
  'controlSeconds',
];

/** Where the search begins: about what a processor of these years takes. */
const START: Omit<Prices, 'handshakeSeconds'> = {
  wakeSeconds: 20e-6,
  switchSeconds: 20e-6,
  frameSeconds: 10e-6,
  byteSeconds: 0.2e-9,
  coldByteSeconds: 0.1e-9,
  callSeconds: 20e-6,
  controlSeconds: 20e-6,
};

/** How far to step from a price: ever finer. */
const STEPS = [2, 1.4, 1.15, 1.05];

/** All-reduces of one size, of which the last is counted: those before it have met the plans. */
const REPETITIONS = 2;

/** What the simulation makes of processes on one machine (seconds). */
export async function predict(
  worldSize: number,
  sizes: readonly number[],
  prices: Prices,
  cores: number,
): Promise<readonly number[]> {
  const topology = oneHost(worldSize, cores);
  const swarm = await Swarm.open({ topology, prices, seed: 1, memory: 'shared' });
  swarm.form(worldSize);
  return sizes.map((bytes) => {
    let ms = 0;
    for (let repetition = 0; repetition < REPETITIONS; repetition++) ms = swarm.allReduce(bytes).ms;
    return ms / 1_000;
  });
}

/** Sum of the squares of the logarithms of predicted over measured: a factor too much counts as one too little. */
async function errorOf(
  observations: ReadonlyMap<number, readonly Observation[]>,
  prices: Prices,
  cores: number,
): Promise<number> {
  let error = 0;
  for (const [worldSize, observed] of observations) {
    const sizes = observed.map(({ bytes }) => bytes);
    const predicted = await predict(worldSize, sizes, prices, cores);
    for (const [at, { seconds }] of observed.entries()) error += Math.log(predicted[at]! / seconds) ** 2;
  }
  return error;
}

/**
 * By coordinate descent over factors, as prices are orders of magnitude apart.
 *
 * @param handshakeSeconds measured by itself: no all-reduce shows it
 */
export async function fitPrices(
  observed: readonly Observation[],
  cores: number,
  handshakeSeconds: number,
): Promise<{ readonly prices: Prices; readonly error: number }> {
  const byWorld = new Map<number, Observation[]>();
  for (const one of observed) byWorld.set(one.worldSize, [...(byWorld.get(one.worldSize) ?? []), one]);
  let prices: Prices = { ...START, handshakeSeconds };
  let error = await errorOf(byWorld, prices, cores);
  for (const step of STEPS) {
    for (let improves = true; improves; ) {
      improves = false;
      for (const name of FITTED) {
        for (const factor of [step, 1 / step]) {
          const tried = { ...prices, [name]: prices[name] * factor };
          const triedError = await errorOf(byWorld, tried, cores);
          if (triedError >= error * (1 - 1e-3)) continue;
          [prices, error, improves] = [tried, triedError, true];
        }
      }
    }
  }
  return { prices, error: Math.sqrt(error / observed.length) };
}
