/**
 * A member for the soak: all-reduces under several tags at once, also across boundaries, until it is told to end or is
 * killed. Inputs are small whole numbers that follow from the peer, the boundary and the tag, so that every element of every result
 * can be checked exactly from the report's contributors.
 */
import { type Group, join, QuorumError, type Report, SkeinError } from '../../src/index.ts';
import type { ReportedResult } from '../harness/agreement.ts';
import { EVICTED, FAILED, type SoakMessage, type SoakOrder, type SoakTask } from '../harness/soak-messages.ts';

const PATTERN = 13;

function say(message: SoakMessage): void {
  process.send?.(message);
}

/** FNV-1a of the peer, the boundary and the tag: what one peer puts in at one place of the pattern. */
function placed(peerId: string, boundary: number, tag: number, place: number): number {
  let hash = 0x811c9dc5;
  for (const unit of `${peerId} ${boundary} ${tag} ${place}`)
    hash = Math.imul(hash ^ unit.charCodeAt(0), 0x01000193) >>> 0;
  return (hash >>> 8) % 8;
}

function patternOf(peerIds: readonly string[], boundary: number, tag: number): number[] {
  return Array.from({ length: PATTERN }, (_, place) =>
    peerIds.reduce((sum, peerId) => sum + placed(peerId, boundary, tag, place), 0),
  );
}

/** The pattern again and again. */
function tile(pattern: readonly number[], count: number): Float32Array {
  const values = new Float32Array(count);
  values.set(pattern.slice(0, count), 0);
  for (let filled = pattern.length; filled < count; filled *= 2) values.copyWithin(filled, 0, filled);
  return values;
}

function check(out: Float32Array, report: Report, boundary: number, tag: number): ReportedResult {
  const { id, epoch, contributors } = report;
  const wanted = tile(patternOf(contributors, boundary, tag), out.length);
  if (Buffer.compare(Buffer.from(wanted.buffer), Buffer.from(out.buffer)) !== 0) {
    const index = wanted.findIndex((value, at) => value !== out[at]);
    const text = `element ${index} of ${id} is ${out[index]} where ${wanted[index]} is the sum of ${contributors.join(', ')}`;
    say({ type: 'wrong', text });
  }
  return { id, epoch, contributors };
}

/** Null when the kills left too few members of those that began it, for which nobody can be blamed. */
async function reduce(group: Group, boundary: number, tag: number, count: number): Promise<ReportedResult | null> {
  const input = tile(patternOf([group.peerId], boundary, tag), count);
  const out = new Float32Array(count);
  try {
    const report = await group.allReduce(input, { out, tag: `tag ${tag}` });
    return check(out, report, boundary, tag);
  } catch (error) {
    if (error instanceof QuorumError) return null;
    throw error;
  }
}

function stepOf(boundary: number, worldSize: number, outcomes: readonly (ReportedResult | null)[]): SoakMessage {
  const results = outcomes.filter((outcome) => outcome !== null);
  return { type: 'step', boundary, worldSize, results, lost: outcomes.length - results.length };
}

async function soak(task: SoakTask): Promise<void> {
  const { address, startWorldSize, tags, count, ahead } = task;
  const group = await join(address, { startWorldSize, minWorldSize: 2, timeout: 60_000 });
  say({ type: 'joined', peerId: group.peerId });
  let last = Number.POSITIVE_INFINITY;
  process.on('message', (order: SoakOrder) => {
    if (order === 'status') void group.status().then((status) => say({ type: 'status', status }));
    else last = order === 'leave' ? 0 : order.end;
  });
  const open: Promise<readonly (ReportedResult | null)[]>[] = [];
  for await (const { boundary, worldSize } of group.steps()) {
    const results = Promise.all(Array.from({ length: tags }, (_, tag) => reduce(group, boundary, tag, count)));
    open.push(results);
    results.catch(() => {}); // looked at in its turn
    while (open.length > ahead) say(stepOf(boundary, worldSize, await open.shift()!));
    if (boundary >= last) break;
  }
  await Promise.allSettled(open);
  await group.leave();
}

process.on('disconnect', () => process.exit(0));
const task = JSON.parse(process.argv[2] ?? '') as SoakTask; // written by soak.ts
soak(task).then(
  () => process.exit(0),
  (error: unknown) => {
    const code = error instanceof SkeinError ? error.code : '';
    if (code !== 'SKEIN_EVICTED')
      say({ type: 'wrong', text: error instanceof Error ? String(error.stack) : String(error) });
    process.exit(code === 'SKEIN_EVICTED' ? EVICTED : FAILED);
  },
);
