/** The order of files, on a fresh clone, too: what takes longest begins first, so that no worker is left alone with it in the end. */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Of more than 20 s, roughly by length; those that need all of a core stand apart from one another. */
const LONGEST: readonly string[] = [
  'chaos/chaos',
  'docs/blocks',
  'sim/sim',
  'conformance/transports',
  'browser/dashboard',
  'sim/mutants/mutants',
  'browser/tabs',
  'nat/mixed',
  'examples/diloco-mnist',
  'processes/kill',
  'executor/executor',
  'nat/webrtc',
  'cli/bench',
  'cli/launch',
  'doctor/hangs',
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
