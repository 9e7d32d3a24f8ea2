/**
 * The outer optimiser: SGD with momentum in PyTorch's form (`torch.optim.SGD`), and CO2's two measures against stale outer
 * gradients. Its state is plain data, so that it can be saved, hashed and handed to newcomers.
 *
 *     buffer ← gradient                                          at the first step
 *     buffer ← momentum · buffer + (1 − dampening) · gradient    later
 *     step   ← gradient + momentum · buffer                      with Nesterov, else the buffer
 *     parameter ← parameter − learningRate · step
 *
 * PyTorch's momentum multiplies the learning rate in the last line, not in the buffer; Sutskever's form differs when the
 * rate changes.
 */
import { ArgumentError } from '../index.ts';

/** The outer optimiser. */
export interface OuterOptions {
  /** @default 0.7, as in DiLoCo (arXiv 2311.08105, section 3) */
  readonly learningRate?: number;
  /** 0.9 suits long runs; with a few dozen rounds 0.6 often ends lower. @default 0.9 */
  readonly momentum?: number;
  /** Not with `apply: 'eager'`. @default 0 */
  readonly dampening?: number;
  /** @default true where there is momentum and no dampening */
  readonly nesterov?: boolean;
  /**
   * CO2's outer momentum clipping (arXiv 2401.16265, section 3): no component of the momentum, nor of a step before it is
   * multiplied by the learning rate, is larger than this. Not with `apply: 'eager'`. @default Infinity
   */
  readonly clip?: number;
  /** CO2's staleness gap penalty: outer gradients that come late are divided by it, so at least 1. @default 1 */
  readonly stalePenalty?: number;
}

export type ResolvedOuter = Required<OuterOptions>;

/** Of one fragment. Two states that are equal go on equally. */
export interface OuterState {
  /** Steps taken. */
  steps: number;
  /** One element per parameter; zeros while `steps` is 0. */
  readonly momentum: Float32Array;
}

function checkRange(value: number, least: number, most: number, name: string): number {
  if (value >= least && value <= most) return value;
  throw new ArgumentError(`\`outer.${name}\` must be between ${least} and ${most}, not ${value}.`);
}

/** @throws ArgumentError */
export function resolveOuter(options: OuterOptions = {}): ResolvedOuter {
  const momentum = checkRange(options.momentum ?? 0.9, 0, 1, 'momentum');
  const dampening = checkRange(options.dampening ?? 0, 0, 1, 'dampening');
  const nesterov = options.nesterov ?? (momentum > 0 && dampening === 0);
  if (nesterov && (momentum === 0 || dampening !== 0)) {
    throw new ArgumentError('`outer.nesterov` needs a momentum above 0 and no dampening.');
  }
  return {
    learningRate: checkRange(options.learningRate ?? 0.7, 0, Number.MAX_VALUE, 'learningRate'),
    momentum,
    dampening,
    nesterov,
    clip: checkRange(options.clip ?? Number.POSITIVE_INFINITY, Number.MIN_VALUE, Number.POSITIVE_INFINITY, 'clip'),
    stalePenalty: checkRange(options.stalePenalty ?? 1, 1, Number.MAX_VALUE, 'stalePenalty'),
  };
}

function clamp(value: number, most: number): number {
  return Math.max(-most, Math.min(most, value));
}

export function createOuterState(count: number): OuterState {
  return { steps: 0, momentum: new Float32Array(count) };
}

/**
 * One step, in place. Computes in double precision and rounds what it stores, in the same order on every peer.
 *
 * @param parameters f32, receives the result
 * @param gradient f32, as long; stays as it is
 * @param stale the gradient belongs to an earlier round: it counts 1/`stalePenalty`
 */
export function outerStep(
  options: ResolvedOuter,
  state: OuterState,
  parameters: Float32Array,
  gradient: Float32Array,
  stale = false,
): void {
  const { learningRate, momentum, dampening, nesterov, clip, stalePenalty } = options;
  const scale = stale ? 1 / stalePenalty : 1;
  // The buffer is zero before the first step, where PyTorch takes the gradient without dampening.
  const kept = state.steps === 0 ? 0 : momentum;
  const added = state.steps === 0 ? 1 : 1 - dampening;
  const buffer = state.momentum;
  for (let index = 0; index < parameters.length; index++) {
    const slope = gradient[index]! * scale;
    buffer[index] = clamp(kept * buffer[index]! + added * slope, clip);
    const remembered = momentum === 0 ? slope : buffer[index]!;
    const step = nesterov ? slope + momentum * remembered : remembered;
    parameters[index] = parameters[index]! - learningRate * clamp(step, clip);
  }
  state.steps += 1;
}
