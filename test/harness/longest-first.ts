/** The order of files, on a fresh clone, too: what takes longest begins first, so that no worker is left alone with it in the end. */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Of more than 20 s, roughly by length: those that start many processes apart from one another, and from chaos, which has times to keep. */
const LONGEST: readonly string[] = [
  'chaos/chaos',
  'sim/sim',
  'conformance/transports',
  'nat/mixed',
  'processes/kill',
  'sim/mutants/mutants',
  'docs/blocks',
  'nat/webrtc',
  'browser/dashboard',
  'executor/executor',
  'browser/tabs',
  'cli/launch',
  'examples/diloco-mnist',
  'doctor/hangs',
  'cli/bench',
  'nat/reach',
  'sim/cuts',
  'group/stream',
  'benchmark/measure',
];

function placeOf({ moduleId }: TestSpecification): number {
  const place = LONGEST.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
  return place < 0 ? LONGEST.length : place;
}

/** Which projects run at the same time is not decided here. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.sort((left, right) => placeOf(left) - placeOf(right));
  }
}
