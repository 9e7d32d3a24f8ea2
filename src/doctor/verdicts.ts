/**
 * Who is to blame when a run stands still: from the flight records of its peers to verdicts in plain words. Pure: it sees nothing but the
 * records, which may have been written at different times, by clocks that differ, and not by all peers. So ages are always taken within
 * one record.
 *
 * A call is *stuck* when somebody has waited in it for longer than the reader's patience, or when it failed because others did not do
 * their part and nothing has succeeded under its tag since. For each stuck call, in this order:
 *
 *     its callers called different things           mismatch
 *     members have not made it                      never-entered, behind, order, silent, absent, unknown
 *     all have, and a way between two is dead       cut
 *     all have, and one has not filled its tensor   stream
 *     all hold the result, or stand still           coordinator
 *     one waits for nobody, and others for it       slow
 */
import type { FlightCall, FlightDump, FlightLink } from '../wire/flight.ts';
import { callOf, differences, Names, timeOf } from './words.ts';

type VerdictKind =
  | 'mismatch'
  | 'never-entered'
  | 'behind'
  | 'order'
  | 'silent'
  | 'absent'
  | 'cut'
  | 'stream'
  | 'coordinator'
  | 'quorum'
  | 'slow'
  | 'unknown';

export interface Verdict {
  readonly kind: VerdictKind;
  /** Peers that it points at; empty where it is none of them. */
  readonly culprits: readonly string[];
  /** Id of the call that is stuck; null where it is about no call. */
  readonly call: string | null;
  readonly text: string;
}

export interface Evidence {
  readonly dumps: readonly FlightDump[];
  /** Peers that are in touch with the coordinator, and did not answer. */
  readonly silent?: readonly string[];
  /** Peers that have no connection to the coordinator. */
  readonly absent?: readonly string[];
}

/** Failures that say that others did not do their part. */
const OTHERS_FAULT: ReadonlySet<string> = new Set(['SKEIN_TIMEOUT', 'SKEIN_WITHDRAWN', 'SKEIN_MISMATCH']);

/** One peer's part in a call. */
interface Part {
  readonly dump: FlightDump;
  readonly call: FlightCall;
}

/** A call that is stuck, and all that is known of it. */
interface Stuck {
  readonly id: string;
  /** Those who made it, by id. */
  readonly parts: ReadonlyMap<string, Part>;
  /** Who should have. */
  readonly expected: readonly string[];
}

function isOpen({ endedAt }: FlightCall): boolean {
  return endedAt === null;
}

/** How long somebody waited in it (ms). */
function waitOf({ dump, call }: Part): number {
  return (call.endedAt ?? dump.takenAt) - call.calledAt;
}

function isStuck(part: Part, patienceMs: number): boolean {
  const { dump, call } = part;
  if (call.id === '') return false;
  if (isOpen(call)) return waitOf(part) >= patienceMs;
  if (call.state !== 'failed' || !OTHERS_FAULT.has(call.error?.code ?? '')) return false;
  return !dump.calls.some(
    (other) => other.tag === call.tag && other.state === 'committed' && other.calledAt > call.calledAt,
  );
}

/** All stuck calls, those that were made first first. */
function stuckCalls(dumps: readonly FlightDump[], patienceMs: number): Stuck[] {
  const byId = new Map<string, Part[]>();
  for (const dump of dumps) {
    for (const call of dump.calls) {
      const parts = byId.get(call.id);
      if (parts === undefined) byId.set(call.id, [{ dump, call }]);
      else parts.push({ dump, call });
    }
  }
  const stuck: Stuck[] = [];
  for (const [id, all] of byId) {
    if (!all.some((part) => isStuck(part, patienceMs))) continue;
    const parts = new Map(all.map((part) => [part.dump.peerId, part]));
    // Of a generation that is gone only those are known who had to do with it.
    const present = all.filter(({ dump, call }) => dump.generation === call.generation);
    const neighbours = all.flatMap(({ call }) => call.neighbours.map(({ peerId }) => peerId));
    const expected = new Set([...parts.keys(), ...(newest(present.map(({ dump }) => dump))?.members ?? neighbours)]);
    stuck.push({ id, parts, expected: [...expected] });
  }
  const firstAt = ({ parts }: Stuck) => Math.min(...[...parts.values()].map(({ call }) => call.calledAt));
  return stuck.sort((left, right) => firstAt(left) - firstAt(right));
}

function newest(dumps: readonly FlightDump[]): FlightDump | undefined {
  return [...dumps].sort((left, right) => right.epoch - left.epoch || right.takenAt - left.takenAt)[0];
}

class Examination {
  readonly #evidence: Evidence;
  readonly #dumps: ReadonlyMap<string, FlightDump>;
  readonly #patienceMs: number;
  readonly #names: Names;
  readonly #stuck: readonly Stuck[];
  readonly #verdicts: Verdict[] = [];
  /** What was told already: later calls of the same tag, and the other half of a pair. */
  readonly #told: Set<string> = new Set();

  constructor(evidence: Evidence, patienceMs: number) {
    this.#evidence = evidence;
    this.#dumps = new Map(evidence.dumps.map((dump) => [dump.peerId, dump]));
    this.#patienceMs = patienceMs;
    this.#names = new Names(newest(evidence.dumps)?.members ?? []);
    this.#stuck = stuckCalls(evidence.dumps, patienceMs);
  }

  run(): readonly Verdict[] {
    this.#lookAtCoordinator();
    for (const stuck of this.#stuck) this.#look(stuck);
    return this.#verdicts;
  }

  /** Once for each key. */
  #tell(key: string, verdict: Verdict): void {
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.#verdicts.push(verdict);
  }

  #lookAtCoordinator(): void {
    const cutOff = this.#evidence.dumps.filter(({ coordinator }) => !coordinator.connected);
    if (cutOff.length === 0) return;
    const peers = cutOff.map(({ peerId }) => peerId);
    const longest = timeOf(Math.max(...cutOff.map(({ coordinator }) => coordinator.silentMs)));
    const isAll = cutOff.length === this.#evidence.dumps.length;
    const who = isAll && peers.length > 1 ? 'no peer' : this.#names.all(peers);
    const verb = isAll && peers.length > 1 ? 'is' : peers.length === 1 ? 'is not' : 'are not';
    const text = `${who} ${verb} in touch with the coordinator, for up to ${longest}: what needs a decision waits until one of them is back`;
    this.#tell('coordinator', { kind: 'coordinator', culprits: isAll ? [] : peers, call: null, text });
  }

  #look(stuck: Stuck): void {
    if (this.#lookForMismatch(stuck)) return;
    const missing = stuck.expected.filter((peerId) => !stuck.parts.has(peerId));
    for (const peerId of missing) this.#lookAtMissing(stuck, peerId);
    if (missing.length > 0 || this.#lookForCuts(stuck)) return;
    this.#lookAtStates(stuck);
  }

  /** A call of the stuck ones, as anybody made it. */
  #any({ parts }: Stuck): Part {
    return [...parts.values()][0]!; // somebody made it, or it would not be known
  }

  /** `ranks 0–2 wait for it since 41 s`. */
  #whoWaits({ parts }: Stuck): string {
    const all = [...parts.values()];
    const open = all.filter(({ call }) => isOpen(call));
    const waiting = open.length > 0 ? open : all;
    const who = this.#names.all(waiting.map(({ dump }) => dump.peerId));
    const longest = timeOf(Math.max(...waiting.map(waitOf)));
    const one = waiting.length === 1;
    return open.length > 0
      ? `${who} ${one ? 'waits' : 'wait'} for it since ${longest}`
      : `${who} waited ${longest} for it, and then it failed`;
  }

  // --- who called what ---------------------------------------------------------------------------------------------

  #lookForMismatch({ id, parts }: Stuck): boolean {
    const groups = new Map<string, Part[]>();
    for (const part of parts.values()) {
      const { call } = part;
      const shape = `${call.kind} ${call.dtype} ${call.count} ${call.op} ${call.root} ${call.codec}`;
      // What has failed before it began has no description.
      const key = call.description === '' ? shape : `${shape} ${call.description}`;
      const same = [...groups.keys()].find((other) => other === key || other.startsWith(`${key} `));
      const group = groups.get(same ?? key);
      if (group === undefined) groups.set(key, [part]);
      else group.push(part);
    }
    if (groups.size < 2) return false;
    const bySize = [...groups.values()].sort((left, right) => right.length - left.length);
    const [most, second] = [bySize[0]!, bySize[1]!]; // there are two at least
    const isTie = most.length === second.length;
    const culprits = (isTie ? bySize : bySize.slice(1)).flat().map(({ dump }) => dump.peerId);
    const shapes = differences(bySize.map(([part]) => part!.call)); // no group is empty
    const others = bySize.slice(1).map((group, index) => {
      const who = this.#names.all(group.map(({ dump }) => dump.peerId));
      return `${who} called ${callOf(most[0]!.call)} with ${shapes[index + 1]}`;
    });
    const rest = isTie ? this.#names.all(most.map(({ dump }) => dump.peerId)) : 'the others';
    const text = `${others.join(', ')}, ${rest} with ${shapes[0]}`;
    this.#tell(`mismatch ${id}`, { kind: 'mismatch', culprits, call: id, text });
    return true;
  }

  #lookAtMissing(stuck: Stuck, peerId: string): void {
    const { id } = stuck;
    const { call } = this.#any(stuck);
    const who = this.#names.one(peerId);
    const waits = this.#whoWaits(stuck);
    const key = `missing ${peerId} ${call.generation} ${call.tag}`;
    const dump = this.#dumps.get(peerId);
    const tell = (kind: VerdictKind, text: string) => this.#tell(key, { kind, culprits: [peerId], call: id, text });
    if (dump === undefined) {
      if (this.#evidence.silent?.includes(peerId) === true)
        tell(
          'silent',
          `${who} did not answer, although its connection to the coordinator stands: its process, or the thread of its engine, stands still. ${callOf(call)} is stuck: ${waits}`,
        );
      else if (this.#evidence.absent?.includes(peerId) === true)
        tell('absent', `${who} has no connection to the coordinator. ${callOf(call)} is stuck: ${waits}`);
      else
        tell(
          'unknown',
          `nothing is known of ${who}, of which there is no flight record. ${callOf(call)} is stuck: ${waits}`,
        );
      return;
    }
    const first = Math.min(...[...stuck.parts.values()].map((part) => part.call.calledAt));
    if (dump.takenAt + this.#patienceMs < first) {
      tell(
        'unknown',
        `the flight record of ${who} was written before ${callOf(call)} was made, which is stuck: ${waits}`,
      );
      return;
    }
    if (dump.generation < call.generation) {
      const boundary = newest([...stuck.parts.values()].map((part) => part.dump))!.boundary; // somebody made it
      tell(
        'behind',
        `desynchronised: ${who} has passed boundary ${dump.boundary}, the others boundary ${boundary}, after which they made ${callOf(call)}: ${waits}`,
      );
      return;
    }
    const elsewhere = this.#stuck.find((other) => {
      const part = other.parts.get(peerId);
      return other.id !== id && part !== undefined && isOpen(part.call) && this.#lacksSomeOf(other, stuck);
    });
    if (elsewhere !== undefined) {
      this.#tellOrder(stuck, elsewhere);
      return;
    }
    const last = [...dump.calls].sort((left, right) => left.calledAt - right.calledAt).at(-1);
    const lastWords = last === undefined ? 'it has made no call yet' : `its last call was ${lastCall(dump, last)}`;
    const next = dump.next.find(({ tag }) => tag === call.tag)?.sequence ?? call.sequence;
    const later = this.#stuck.filter(
      ({ parts, ...other }) => !parts.has(peerId) && this.#isOfTag({ parts, ...other }, call) && other.id !== id,
    );
    const behind = Math.max(call.sequence - next, 0) + later.length;
    if (behind > 0)
      tell(
        'behind',
        `desynchronised: ${who} is ${behind + 1} calls behind${call.tag === '' ? '' : ` under tag ${JSON.stringify(call.tag)}`}: it never entered ${callOf(call)} and those after it; ${waits}; ${lastWords}`,
      );
    else tell('never-entered', `${who} never entered ${callOf(call)}; ${waits}; ${lastWords}`);
  }

  #isOfTag(stuck: Stuck, { tag, generation }: FlightCall): boolean {
    const { call } = this.#any(stuck);
    return call.tag === tag && call.generation === generation;
  }

  /** Whether some of those who made a call are missing in another. */
  #lacksSomeOf(other: Stuck, { parts }: Stuck): boolean {
    return [...parts.keys()].some((peerId) => other.expected.includes(peerId) && !other.parts.has(peerId));
  }

  #tellOrder(one: Stuck, other: Stuck): void {
    const sides = [one, other].map((stuck) => {
      const open = [...stuck.parts.values()].filter(({ call }) => isOpen(call)).map(({ dump }) => dump.peerId);
      return { stuck, peers: open.length > 0 ? open : [...stuck.parts.keys()] };
    });
    const [few, many] = sides.sort((left, right) => left.peers.length - right.peers.length);
    const isTie = few!.peers.length === many!.peers.length; // there are two
    const culprits = isTie ? [...few!.peers, ...many!.peers] : few!.peers;
    const tell = ({ stuck, peers }: (typeof sides)[number]) =>
      `${this.#names.all(peers)} ${peers.length === 1 ? 'waits' : 'wait'} in ${callOf(this.#any(stuck).call)}`;
    const longest = timeOf(Math.max(...sides.flatMap(({ stuck }) => [...stuck.parts.values()].map(waitOf))));
    const text = `the calls are made in different order, or under different tags: ${tell(few!)}, ${tell(many!)}, each for the others to make theirs, since ${longest}`;
    const key = `order ${[one.id, other.id].sort().join(' ')}`;
    this.#tell(key, { kind: 'order', culprits: [...new Set(culprits)], call: one.id, text });
  }

  // --- what does not arrive ----------------------------------------------------------------------------------------

  #lookForCuts({ id, parts }: Stuck): boolean {
    const dead = new Map<string, Map<string, number>>();
    const note = (at: string, from: string, ms: number) => {
      const known = dead.get(at) ?? new Map<string, number>();
      dead.set(at, known.set(from, Math.max(ms, known.get(from) ?? 0)));
    };
    for (const { dump, call } of parts.values()) {
      if (!isOpen(call) && call.error?.code !== 'SKEIN_TIMEOUT') continue;
      for (const link of dump.links) {
        const ms = deadFor(dump, link);
        if (ms !== null && parts.has(link.peerId)) note(dump.peerId, link.peerId, ms);
      }
    }
    if (dead.size === 0) return false;
    const pairs = new Set<string>();
    for (const [at, others] of dead) for (const from of others.keys()) pairs.add([at, from].sort().join(' '));
    const all = [...pairs].map((pair) => pair.split(' ') as [string, string]); // of two ids, which have no space
    // One that nobody can reach is to blame alone.
    for (const peerId of parts.keys()) {
      const mine = all.filter((pair) => pair.includes(peerId));
      if (parts.size < 3 || mine.length < parts.size - 1) continue;
      const ms = Math.max(
        ...[...dead].flatMap(([at, others]) =>
          [...others].filter(([from]) => at === peerId || from === peerId).map(([, silent]) => silent),
        ),
      );
      const text = `${this.#names.one(peerId)} is cut off: nothing passes between it and any other member since ${timeOf(ms)}, while ${this.#inTouch([peerId])} in touch with the coordinator`;
      this.#tell(`cut ${peerId}`, { kind: 'cut', culprits: [peerId], call: id, text });
      return true;
    }
    for (const [one, other] of all) {
      const isOneDeaf = dead.get(one)?.has(other) === true;
      const [at, from] = isOneDeaf ? [one, other] : [other, one];
      const ms = dead.get(at)!.get(from)!; // one of both is deaf
      const isMutual = isOneDeaf && dead.get(other)?.has(one) === true;
      const both = isMutual
        ? `nothing passes between ${this.#names.one(at)} and ${this.#names.one(from)}`
        : `nothing arrives from ${this.#names.one(from)} at ${this.#names.one(at)}`;
      const text = `${both} since ${timeOf(ms)}, while ${this.#inTouch([one, other])} in touch with the coordinator: the link is cut`;
      this.#tell(`cut ${[one, other].sort().join(' ')}`, { kind: 'cut', culprits: [one, other], call: id, text });
    }
    return true;
  }

  #inTouch(peers: readonly string[]): string {
    const connected = peers.filter((peerId) => this.#dumps.get(peerId)?.coordinator.connected === true);
    if (connected.length === 0) return peers.length === 1 ? 'it is not' : 'neither is';
    if (connected.length < peers.length) return `only ${this.#names.all(connected)} is`;
    return peers.length === 1 ? 'it is' : 'both are';
  }

  // --- all have called, and all can reach one another ----------------------------------------------------------------

  #lookAtStates(stuck: Stuck): void {
    const { id } = stuck;
    const open = [...stuck.parts.values()].filter(({ call }) => isOpen(call));
    const { call } = this.#any(stuck);
    const inState = (...states: string[]) => open.filter((part) => states.includes(part.call.state));
    const idsOf = (some: readonly Part[]) => some.map(({ dump }) => dump.peerId);
    const waits = this.#whoWaits(stuck);
    if (open.length === 0) return; // it has failed, and the reason is over
    const unready = open.filter((part) => part.call.awaits.includes(part.dump.peerId));
    if (unready.length > 0) {
      const text = `${this.#names.all(idsOf(unready))} called ${callOf(call)} as a stream, and has not said that all of its tensor is ready; ${waits}`;
      this.#tell(`stream ${id}`, { kind: 'stream', culprits: idsOf(unready), call: id, text });
      return;
    }
    const waiting = inState('waiting');
    if (waiting.length > 0) {
      const text = `${callOf(call)} waits for ${waiting[0]!.call.waitsFor}: too many have left, and ${waits}`;
      this.#tell(`quorum ${id}`, { kind: 'quorum', culprits: [], call: id, text });
      return;
    }
    const undecided = inState('held', 'frozen');
    if (undecided.length === open.length) {
      const text = `${callOf(call)} is as good as done on ${this.#names.all(idsOf(open))}, and only the coordinator's decision is missing; ${waits}`;
      this.#tell(`coordinator ${id}`, { kind: 'coordinator', culprits: [], call: id, text });
      return;
    }
    const awaited = new Set(open.flatMap((part) => part.call.awaits));
    const idle = open.filter(({ dump, call: own }) => awaited.has(dump.peerId) && own.awaits.length === 0);
    const text =
      idle.length > 0
        ? `${this.#names.all(idsOf(idle))} made ${callOf(call)} and waits for nobody, while others wait for its data: it is overloaded, or what it sends does not leave; ${waits}`
        : `all have made ${callOf(call)}, and all wait: ${open.map((part) => `${this.#names.one(part.dump.peerId)} for ${part.call.waitsFor}`).join('; ')}`;
    this.#tell(`slow ${id}`, { kind: idle.length > 0 ? 'slow' : 'unknown', culprits: idsOf(idle), call: id, text });
  }
}

/** `broadcast #811, which was committed 42 s before`. */
function lastCall(dump: FlightDump, call: FlightCall): string {
  if (call.endedAt === null) return `${callOf(call)}, in which it is since ${timeOf(dump.takenAt - call.calledAt)}`;
  const ago = timeOf(dump.takenAt - call.endedAt);
  return call.error === null
    ? `${callOf(call)}, done ${ago} ago`
    : `${callOf(call)}, which failed ${ago} ago: ${call.error.message}`;
}

/** For how long a way has carried nothing although it should have; null: it is sound, as far as is known (ms). */
function deadFor({ boundMs }: FlightDump, { silentMs, downMs, cut, up, receives }: FlightLink): number | null {
  if (cut || silentMs >= boundMs || (downMs >= boundMs / 2 && !(up && receives))) return Math.max(silentMs, downMs);
  return null;
}

/**
 * Finds out why a run stands still.
 *
 * @param patienceMs a call that is open for less is no reason to worry
 * @returns verdicts, the oldest stuck call's first; empty where nothing is stuck
 */
export function findCulprits(evidence: Evidence, patienceMs: number): readonly Verdict[] {
  return new Examination(evidence, patienceMs).run();
}
