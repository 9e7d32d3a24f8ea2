/**
 * A chunk of this rank's plan as its executor sees it: cut into segments, with all that its program says of each of them before the
 * first byte has moved. Pure, and never changed: how far segments are, and where, is known elsewhere.
 *
 * Segments are numbered through all chunks of the rank. All of a chunk have equally many elements, but for the last.
 */
import type { ChunkProgram, Instruction, Plan, Rank } from './program.ts';

export function isReceive(step: Instruction): step is Extract<Instruction, { from: Rank }> {
  return step.do !== 'send';
}

export class Chunk {
  readonly program: ChunkProgram;
  readonly steps: readonly Instruction[];
  /** Its place among the chunks of its rank. */
  readonly order: number;
  readonly firstSegment: number;
  readonly segments: number;
  readonly segmentElements: number;
  /** Whether the value is still needed after step k. */
  readonly neededAfter: readonly boolean[];
  /** Whether what step k takes is a finished value that is sent on as it came. */
  readonly passesOn: readonly boolean[];
  /** The step after which the value is final here; −1: another rank finishes it. */
  readonly finishingStep: number;

  constructor(program: ChunkProgram, order: number, firstSegment: number, segmentElements: number) {
    this.program = program;
    this.steps = program.steps;
    this.order = order;
    this.firstSegment = firstSegment;
    this.segments = Math.ceil(program.count / segmentElements);
    this.segmentElements = segmentElements;
    this.neededAfter = neededAfter(program);
    this.passesOn = passesOn(program);
    this.finishingStep = finishingStep(program);
  }

  /** Elements of the chunk that stand before a segment. */
  before(segment: number): number {
    return (segment - this.firstSegment) * this.segmentElements;
  }

  /** Elements of a segment. */
  elements(segment: number): number {
    return Math.min(this.segmentElements, this.program.count - this.before(segment));
  }

  /** Place of a segment's first element in the tensor. */
  index(segment: number): number {
    const { input, output } = this.program;
    return (input ?? output ?? 0) + this.before(segment);
  }
}

/** The chunks of a plan that have elements, with their segments numbered one after another. */
export function cutChunks(plan: Plan, segmentElements: number): Chunk[] {
  const chunks: Chunk[] = [];
  let segments = 0;
  for (const program of plan.chunks) {
    if (program.count === 0) continue;
    const chunk = new Chunk(program, chunks.length, segments, segmentElements);
    chunks.push(chunk);
    segments += chunk.segments;
  }
  return chunks;
}

function lastIndex(steps: readonly Instruction[], kind: Instruction['do']): number {
  return steps.map((step) => step.do).lastIndexOf(kind);
}

function neededAfter(program: ChunkProgram): boolean[] {
  const needed: boolean[] = new Array(program.steps.length);
  let later = program.output !== null;
  for (let index = program.steps.length - 1; index >= 0; index--) {
    needed[index] = later;
    later = program.steps[index]!.do !== 'replace';
  }
  return needed;
}

function passesOn({ steps }: ChunkProgram): boolean[] {
  const lastSend = lastIndex(steps, 'send');
  return steps.map((step, index) => step.do === 'replace' && index < lastSend);
}

function finishingStep({ output, steps }: ChunkProgram): number {
  return output === null || lastIndex(steps, 'replace') >= 0 ? -1 : lastIndex(steps, 'reduce');
}
