/**
 * The coordinator of one run, as a machine: events in, effects out; no socket, no clock, no randomness of its own.
 *
 * A peer is *warming* (welcomed; dials its future neighbours), *ready* (waits for a boundary), then a *member*.
 *
 *     joined ──▶ warming ──ready──▶ ready ──boundary──▶ member ──loss or leave──▶ gone
 *
 * - Boundary b is decided by the first member that reaches it: all ready peers come in, or nothing changes. The others get
 *   the same answer when they arrive.
 * - `done` from all members of a collective's view → `commit` to all of them.
 * - A member is lost when its connection broke *and* a neighbour saw its link close; or it did not come back in time; or
 *   its signs of life are late. Then: next epoch, `loss` to all; each answers with `progress` (what it holds); what all
 *   survivors hold is committed, everything else is redone (`decision.ts`).
 * - A link that closed between two live members is repaired the same way, with nobody lost. If two members can't reach one
 *   another (*cut*), all attempts of the new epoch go round them; a way that is open again is used from the next epoch or view on.
 * - A peer whose connection broke comes back with a report (`resume`); a coordinator that was restarted waits for its members'
 *   reports, and makes its state from them (`recovery.ts`). Messages may have been lost either way, so everything open is decided anew.
 * - A member for whom others wait may be left out of a collective that allows it (`exclude`), and stays a member.
 * - The ring's order is a fact of a generation, and so are the figures by which the members choose algorithms. Better ones make a new
 *   generation at a boundary (`tuning.ts`).
 *
 * Its parts each keep one thing: who is here (`roster.ts`), the views (`generations.ts`), who waits at a boundary (`boundaries.ts`),
 * what became of each collective (`agreement.ts`), ways that are broken (`broken-ways.ts`). None of them raises the epoch or makes a view:
 * that is done here.
 *
 * Invariants: epochs only grow. A generation's members only shrink. `commit` is sent only when all members of the view hold
 * the result, so any later decision by "do all survivors hold it" agrees with it.
 */
import { UNMEASURED } from '../costs.ts';
import { Lifecycle } from '../lifecycle.ts';
import type { CoordinatorMessage, IceServers } from '../wire/coordinator-messages.ts';
import { MAX_WORLD_SIZE } from '../wire/limits.ts';
import type { Excludable, PeerMessage, RunReport } from '../wire/peer-messages.ts';
import { Agreement, type Failure } from './agreement.ts';
import { Answers } from './answers.ts';
import { Boundaries } from './boundaries.ts';
import { BrokenWays } from './broken-ways.ts';
import { Decision } from './decision.ts';
import type { DetectorBounds } from './detector.ts';
import { Effects } from './effects.ts';
import {
  BACK,
  type CoordinatorEffect,
  type CoordinatorEvent,
  type CoordinatorSnapshot,
  type PeerId,
  type StoredRun,
} from './events.ts';
import { type Generation, Generations, generationOf } from './generations.ts';
import { generationsOf, Recovery, rebuild } from './recovery.ts';
import { placeNewcomers } from './rings.ts';
import { LEFT, type Lost, type PeerRecord, Roster } from './roster.ts';
import { Stragglers } from './stragglers.ts';
import { Tuning } from './tuning.ts';
import { goesRound, type Pair, pairOf } from './ways.ts';

export interface CoordinatorOptions {
  readonly heartbeatMs: number;
  readonly bounds: DetectorBounds;
  /** Cryptographically strong random bytes. */
  random(length: number): Uint8Array;
  /** STUN and TURN servers, with credentials for a peer. */
  iceServers(peerId: PeerId): IceServers;
  /** What an earlier coordinator of the run stored; null when there was none, or its store is gone. */
  readonly stored: StoredRun | null;
  /** Milliseconds in which members of a run that an earlier coordinator led may come back before a new one begins. */
  readonly graceMs: number;
  /** Whether ways between members may be measured that carry nothing. */
  readonly probes: boolean;
}

/** `vacant`: all members are gone. */
type RunState = 'blank' | 'recovering' | 'steady' | 'deciding' | 'vacant';

const RUN = new Lifecycle<RunState>('run', {
  blank: ['recovering', 'steady', 'deciding'],
  recovering: ['blank', 'steady', 'deciding', 'vacant'],
  steady: ['deciding', 'vacant'],
  deciding: ['steady', 'vacant'],
  vacant: ['steady'],
});

/** A tick that comes later than so many heartbeats after the previous one means that the coordinator itself was asleep. */
const ASLEEP_HEARTBEATS = 4;

/** Between looks at who holds the others up (ms). */
const LOOK_MS = 1_000;

export class CoordinatorMachine {
  readonly #options: CoordinatorOptions;
  readonly #effects: Effects = new Effects();
  readonly #roster: Roster;
  readonly #generations: Generations = new Generations();
  readonly #boundaries: Boundaries = new Boundaries();
  readonly #agreement: Agreement;
  readonly #answers: Answers;
  readonly #ways: BrokenWays = new BrokenWays();
  readonly #tuning: Tuning;
  readonly #stragglers: Stragglers = new Stragglers();
  #term: number;
  #epoch: number;
  /** What to do after a loss, as long as survivors have not told what they hold. */
  #decision: Decision | null = null;
  /** A restarted coordinator waits for its members' reports. */
  #recovery: Recovery | null = null;
  /** No view was formed by this coordinator, so what it does not know is what another one decided. */
  #isBlank = true;
  #graceUntil: number;
  /** The last step was within the grace. */
  #inGrace = true;
  #lastTick: number | null = null;
  #lastLook = 0;
  /** At the end of the last step. */
  #state: RunState;
  #now = 0;

  constructor(options: CoordinatorOptions, now = 0) {
    this.#options = options;
    const { stored, bounds, graceMs, probes } = options;
    this.#roster = new Roster(options, this.#effects);
    this.#agreement = new Agreement(this.#generations, this.#roster, this.#effects);
    this.#answers = new Answers(this.#roster, this.#agreement);
    this.#tuning = new Tuning(this.#roster, this.#ways, probes);
    this.#graceUntil = now + graceMs;
    this.#term = (stored?.term ?? 0) + 1;
    this.#epoch = stored?.epoch ?? 0;
    if (stored !== null && stored.members.length > 0)
      this.#recovery = new Recovery(stored.members, now + bounds.minimumMs);
    this.#state = this.#stateNow;
  }

  /** Which coordinator speaks: every message bears it. */
  get term(): number {
    return this.#term;
  }

  /** The epoch that every message bears. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Nobody is here: the run can be forgotten, but for its epoch. */
  get empty(): boolean {
    return this.#roster.size === 0;
  }

  /** Peers that are here, members or not. */
  get size(): number {
    return this.#roster.size;
  }

  /** Members of the present view. */
  get worldSize(): number {
    return this.#generations.members.length;
  }

  /** For status pages and tests. */
  snapshot(): CoordinatorSnapshot {
    const { current, members } = this.#generations;
    return {
      term: this.#term,
      epoch: this.#epoch,
      generation: current?.generation ?? 0,
      members: [...members],
      warming: this.#roster.inState('warming'),
      ready: this.#roster.inState('ready'),
      peers: [...this.#roster.all].map(({ peerId, description: { site }, state }) => ({ peerId, site, state })),
      ...this.#agreement.snapshot(),
      recovering: this.#recovery !== null,
      ring: current === null ? [] : this.#tuning.ringOf(current),
      cuts: this.#ways.cutsAmong(members),
      links: this.#tuning.links,
      costs: current?.costs ?? null,
    };
  }

  step(event: CoordinatorEvent, now: number): CoordinatorEffect[] {
    this.#now = now;
    const [term, epoch] = [this.#term, this.#epoch];
    switch (event.type) {
      case 'joined':
        this.#join(event);
        break;
      case 'resumed':
        this.#resume(event);
        break;
      case 'message': {
        const peer = this.#roster.get(event.peerId);
        if (peer === undefined) break; // evicted or gone: fenced
        peer.detector.signal(now);
        this.#message(peer, event.message);
        break;
      }
      case 'closed':
        this.#closed(event.peerId);
        break;
      case 'dismissed':
        this.#lose([{ peerId: event.peerId, reason: 'it was dismissed by an administrator' }]);
        break;
      case 'tick':
        this.#tick();
        break;
      default:
        event satisfies never;
    }
    this.#state = RUN.step(this.#state, this.#stateNow);
    const effects = this.#effects.take();
    if (term !== this.#term || epoch !== this.#epoch) {
      // Before it knows better, the members are those of the coordinator before it.
      const before = this.#isBlank ? (this.#options.stored?.members ?? []) : [];
      const members = [...(this.#generations.current?.members ?? before)];
      effects.unshift({ type: 'store', run: { term: this.#term, epoch: this.#epoch, members } });
    }
    return effects;
  }

  get #stateNow(): RunState {
    if (this.#recovery !== null) return 'recovering';
    if (this.#generations.current === null) return this.#isBlank ? 'blank' : 'vacant';
    return this.#decision === null ? 'steady' : 'deciding';
  }

  // --- joining -----------------------------------------------------------------------------------------------------

  #join(event: Extract<CoordinatorEvent, { type: 'joined' }>): void {
    const peerId = this.#roster.newPeerId();
    const peer = this.#roster.enroll(peerId, event, this.#now);
    const peers = this.#roster.present(peer);
    const { heartbeatMs, bounds } = this.#options;
    const ice = this.#options.iceServers(peerId);
    const isUnderWay = this.#generations.current !== null || this.#recovery !== null;
    const times = { heartbeatMs, boundMs: bounds.minimumMs };
    this.#effects.send(peerId, { type: 'welcome', peerId, isUnderWay, ...times, ice, peers });
  }

  #ready(peer: PeerRecord): void {
    if (peer.state !== 'warming') return;
    this.#roster.become(peer, 'ready');
    this.#letIn();
  }

  /** Whoever is ready may now come in, or somebody's quorum be there. */
  #letIn(): void {
    if (this.#recovery !== null || this.#now < this.#graceUntil) return;
    if (this.worldSize === 0) this.#formFirstView();
    else this.#retryBoundaries();
  }

  /** With nobody in the view, the ready peers form one as soon as they are as many as each of them wants. */
  #formFirstView(): void {
    const ready = this.#readyPeers();
    const wanted = Math.max(...ready.map((peer) => peer.startWorldSize));
    if (ready.length > 0 && ready.length >= wanted) this.#decideBoundary();
  }

  #readyPeers(): PeerRecord[] {
    return this.#roster.readyPeers(this.worldSize === 0, this.#now);
  }

  // --- boundaries --------------------------------------------------------------------------------------------------

  #onBoundary(peer: PeerRecord, message: Extract<PeerMessage, { type: 'boundary' }>): void {
    const { index, passed, minWorldSize, oldest } = message;
    if (peer.state !== 'member') return;
    const { decided } = this.#boundaries;
    peer.boundary = Math.max(peer.boundary, Math.min(passed, decided));
    // One that ran out of patience may ask again while the answer is on its way: it must not get a second.
    if (index <= peer.answered) return;
    if (this.#recovery === null && this.#boundaries.isTooFar(index)) {
      this.#expel(peer, `it asked for boundary ${index} where ${decided + 1} is next`);
      return;
    }
    peer.oldest = oldest;
    this.#boundaries.ask({ peerId: peer.peerId, index, minWorldSize });
    this.#letIn();
  }

  /** Decides the next boundaries at which one of those waiting would have its quorum, and answers all that can be answered. */
  #retryBoundaries(): void {
    const reachable = this.worldSize + this.#readyPeers().length;
    while (this.#boundaries.isWanted(reachable)) this.#decideBoundary();
    for (const { peerId, index } of this.#boundaries.takeDecided()) {
      const peer = this.#roster.get(peerId);
      if (peer === undefined) continue;
      peer.answered = index;
      this.#effects.send(peerId, this.#answers.boundary(index, this.#generations.madeAt(index)));
    }
    this.#prune();
  }

  #decideBoundary(): void {
    const joining = this.#readyPeers().slice(0, MAX_WORLD_SIZE - this.worldSize);
    const boundary = this.#boundaries.decide();
    const { current } = this.#generations;
    const isOpenAgain = current?.cuts.some((pair) => !this.#ways.isCut(pair)) === true;
    const better = joining.length > 0 || current === null ? null : this.#tuning.betterRing(current, this.#now);
    const isOff = current !== null && this.#tuning.isOff(this.#now);
    // Where a way is open again, the ring has a better order, or figures are off, a view with the same members is made.
    if (joining.length === 0 && !isOpenAgain && better === null && !isOff) return;
    this.#isBlank = false;
    this.#epoch += 1;
    const generation = this.#makeGeneration(boundary, joining, better);
    const { members, joined, costs } = generation;
    this.#generations.add(generation);
    const admitted = this.#answers.admitted(generation);
    for (const peer of joining) this.#admit(peer, generation, admitted);
    this.#effects.note(
      `boundary ${boundary}: epoch ${this.#epoch}, ${members.length} members, joined ${joined.join(', ')}`,
    );
    if (better !== null) this.#effects.note(`the ring has a new order: ${better.join(', ')}`);
    if (costs !== (current?.costs ?? UNMEASURED))
      this.#effects.note(`algorithms are chosen by ${JSON.stringify(costs)}`);
  }

  /** @param better order of the ring, where there is one */
  #makeGeneration(boundary: number, joining: readonly PeerRecord[], better: readonly PeerId[] | null): Generation {
    const { current } = this.#generations;
    const joined = joining.map((peer) => peer.peerId);
    const members = [...this.#generations.members, ...joined];
    const before = current?.ring.filter((peerId) => members.includes(peerId)) ?? [];
    const ring = better ?? placeNewcomers(before, joined, (peerId) => this.#roster.siteOf(peerId));
    const costs = this.#tuning.settle({ ring, members }, current?.costs ?? UNMEASURED, this.#now);
    const cuts = this.#ways.cutsAmong(members);
    return { generation: this.#epoch, boundary, epoch: this.#epoch, members, joined, ring, cuts, costs };
  }

  #admit(peer: PeerRecord, generation: Generation, admitted: CoordinatorMessage): void {
    this.#roster.become(peer, 'member');
    peer.admittedAt = this.#now;
    peer.boundary = generation.boundary;
    peer.answered = generation.boundary;
    peer.oldest = generation.generation;
    this.#effects.send(peer.peerId, admitted);
  }

  /** Forgets what every member has passed, and in which nobody can have anything open. */
  #prune(): void {
    let passed = this.#boundaries.decided;
    let oldest = this.#generations.current?.generation ?? 0;
    for (const peer of this.#roster.all) {
      if (peer.state !== 'member') continue;
      passed = Math.min(passed, peer.boundary);
      oldest = Math.min(oldest, peer.oldest);
    }
    this.#generations.prune(oldest, passed);
    this.#agreement.prune();
  }

  // --- messages ----------------------------------------------------------------------------------------------------

  #message(peer: PeerRecord, message: PeerMessage): void {
    switch (message.type) {
      case 'ready':
        this.#ready(peer);
        break;
      case 'beat':
        this.#effects.send(peer.peerId, { type: 'beat' });
        break;
      case 'boundary':
        this.#onBoundary(peer, message);
        break;
      case 'done':
        this.#onDone(peer, message);
        break;
      case 'progress':
        this.#onProgress(peer, message);
        break;
      case 'mismatch':
        this.#onMismatch(peer, message);
        break;
      case 'withdraw': {
        const { id, generation, reason } = message;
        const text = `${peer.peerId} withdrew: ${reason}`;
        this.#failCollective(peer.peerId, { id, generation, code: 'withdrawn', message: text });
        break;
      }
      case 'link-closed':
        this.#onLinkClosed(peer, message.peerId);
        break;
      case 'path':
        this.#onPath(peer, message);
        break;
      case 'signal':
      case 'ice':
      case 'notes':
      case 'ask-flights':
      case 'flight':
      case 'figures':
        break; // the server's affair: they change nothing
      case 'waits':
        this.#stragglers.report(peer.peerId, message.waits, this.#now);
        break;
      case 'links':
        this.#tuning.report(peer.peerId, message.links, (peerId) => this.#isExpected(peerId), this.#now);
        break;
      case 'leave':
        this.#lose([{ peerId: peer.peerId, reason: LEFT }]);
        break;
      case 'hello':
      case 'prove':
      case 'resume':
        this.#expel(peer, 'it greeted twice');
        break;
      default:
        message satisfies never;
    }
  }

  /** Whether a peer is here, or is to come back. */
  #isExpected(peerId: PeerId): boolean {
    return this.#roster.has(peerId) || this.#recovery?.awaits(peerId) === true;
  }

  #expel(peer: PeerRecord, reason: string): void {
    this.#lose([{ peerId: peer.peerId, reason: `it broke the protocol: ${reason}` }]);
  }

  // --- collectives -------------------------------------------------------------------------------------------------

  #onDone(peer: PeerRecord, message: Extract<PeerMessage, { type: 'done' }>): void {
    if (this.#agreement.onDone(peer.peerId, message, this.#now)) return;
    // The table is everybody's: who has filled it need not be who finds it full.
    const busiest = this.#roster.get(this.#agreement.busiest() ?? peer.peerId);
    this.#expel(busiest ?? peer, 'it has too many collectives open');
  }

  #onMismatch(peer: PeerRecord, message: Extract<PeerMessage, { type: 'mismatch' }>): void {
    const { id, generation } = message;
    const text = `the peers called it differently: ${peer.peerId} called ${message.mine}, ${message.with} called ${message.theirs}. Make the same call on every member.`;
    this.#failCollective(peer.peerId, { id, generation, code: 'mismatch', message: text });
  }

  #failCollective(by: PeerId, failure: Failure): void {
    // Which views there are is not known yet.
    if (this.#recovery?.addFailure(by, failure) !== true) this.#agreement.fail(by, failure);
  }

  #nameSlow(): void {
    const { members } = this.#generations;
    for (const { slow, isNews, calls } of this.#stragglers.look(members, this.#now)) {
      const { peerId, waiting, blocked, waitedMs } = slow;
      if (isNews) {
        this.#effects.note(`${peerId} is slow: ${waiting.join(', ')} wait for it`);
        const told = { peerId, waiting: [...waiting], blocked: [...blocked], waitedMs };
        const message: CoordinatorMessage = { type: 'slow', ...told };
        for (const member of members) this.#effects.send(member, message);
      }
      for (const { by, call } of calls) this.#goOnWithout([peerId], by, call);
    }
    for (const { missing, holder, call } of this.#agreement.overdue(this.#now)) {
      const isVictim = (peerId: PeerId) => this.#stragglers.isWaiting(peerId);
      if (!missing.some(isVictim)) this.#goOnWithout(missing, holder, call);
    }
  }

  /** Begins a collective anew without those for whom the others wait. */
  #goOnWithout(slow: readonly PeerId[], by: PeerId, call: Excludable): void {
    if (this.#decision !== null || this.#recovery !== null) return;
    if (!this.#agreement.canDoWithout(slow, by, call)) return;
    this.#epoch += 1;
    this.#effects.note(`${call.id} goes on without ${slow.join(', ')}`);
    this.#agreement.exclude(call.id, slow, this.#epoch);
  }

  // --- coming back -------------------------------------------------------------------------------------------------

  #resume(event: Extract<CoordinatorEvent, { type: 'resumed' }>): void {
    const { report, connection } = event;
    const { peerId } = report;
    const known = this.#roster.get(peerId);
    if (this.#isOfAnotherRun(report)) {
      const reason = 'the run went on while it was away';
      this.#effects.assign(connection, peerId);
      this.#effects.send(peerId, { type: 'evicted', reason });
      this.#effects.close(peerId, reason);
      return;
    }
    if (this.#isBlank) {
      // From the first word on: peers refuse what bears less than they have heard.
      this.#term = Math.max(this.#term, report.term + 1);
      this.#epoch = Math.max(this.#epoch, report.epoch);
    }
    if (known !== undefined && known.disconnectedAt === null) this.#effects.close(peerId, BACK);
    const peer = known ?? this.#roster.enroll(peerId, event, this.#now);
    if (known !== undefined) this.#effects.assign(connection, peerId);
    this.#ways.forgetWordOf(peerId);
    this.#roster.reconnect(peer, report, this.#now);
    const knowsAll = !this.#isBlank && this.#recovery === null; // else others may still come back
    if (knowsAll) this.#roster.dismissGone(peer);
    const { heartbeatMs, bounds } = this.#options;
    this.#effects.send(peerId, { type: 'resumed', heartbeatMs, boundMs: bounds.minimumMs });
    this.#roster.acquaint(peer);
    if (report.state === 'member' && peer.state !== 'member') this.#expect(peer, report);
    else if (peer.state === 'member') this.#catchUp(peer, report);
    else if (report.state === 'ready') this.#ready(peer);
  }

  /** Whether the run has gone on without a peer that comes back, or is not the one that it knows. */
  #isOfAnotherRun(report: RunReport): boolean {
    const { peerId, state, term, views } = report;
    const known = this.#roster.get(peerId);
    const isForeign = state === 'member' && known?.state !== 'member' && !this.#isBlank;
    const newest = views.at(-1);
    const isStrange = newest !== undefined && !newest.members.some((member) => member.peerId === peerId);
    const hasHeardOfAnother = known !== undefined && term > this.#term;
    return isForeign || isStrange || this.#wasLost(report) || this.#roster.isFallen(peerId) || hasHeardOfAnother;
  }

  /** As the store tells, the coordinator before this one had lost it: others may have gone on, and been told so, without it. */
  #wasLost({ peerId, state, epoch }: RunReport): boolean {
    const { stored } = this.#options;
    if (stored === null || !this.#isBlank || state !== 'member') return false;
    return epoch <= stored.epoch && !stored.members.includes(peerId);
  }

  /** A member of ours is back: tells it what it may have missed. */
  #catchUp(peer: PeerRecord, report: RunReport): void {
    if (this.#recovery !== null) {
      this.#expect(peer, report);
      return;
    }
    this.#roster.restore(peer, report);
    for (const failed of report.failed) this.#failCollective(peer.peerId, failed);
    this.#agreement.catchUp(peer);
    this.#newEpoch([], null, true);
    // After the loss, so that it calls nothing before what was open is decided.
    const made = this.#generations.withNewcomer(peer.peerId);
    if (report.state !== 'member' && made !== undefined) this.#admit(peer, made, this.#answers.admitted(made));
  }

  /** A member of a run that another coordinator led: its report is part of what the run is rebuilt from. */
  #expect(peer: PeerRecord, report: RunReport): void {
    this.#roster.become(peer, 'member');
    this.#recovery ??= new Recovery([], this.#now + this.#options.bounds.minimumMs);
    this.#recovery.add(peer.peerId, report);
    if (this.#recovery.isComplete((peerId) => this.#roster.isConnected(peerId))) this.#rebuild(this.#recovery);
  }

  /** Makes the run's state from the reports. Who has not reported is lost. */
  #rebuild(recovery: Recovery): void {
    const { reports } = recovery;
    const { epoch, boundary, views } = rebuild(reports.values());
    this.#epoch = Math.max(this.#epoch, epoch);
    this.#boundaries.catchUp(boundary);
    const strangers = recovery.strangers();
    for (const peerId of strangers) this.#roster.bury(peerId);
    this.#lose(strangers.map((peerId) => ({ peerId, reason: 'the run went on while it was away' })));
    this.#recovery = null;
    for (const generation of generationsOf(views)) this.#generations.add(generation);
    if (views.length > 0) {
      this.#isBlank = false;
      this.#graceUntil = this.#now; // they are back
    }
    for (const [peerId, report] of reports) {
      const peer = this.#roster.get(peerId);
      if (peer !== undefined) this.#roster.restore(peer, report);
    }
    // Newcomers, too: one that is still to be told of its view drops the lost along with the members.
    for (const peer of this.#roster.all) this.#roster.dismissGone(peer);
    // First, as who is excluded can't fail it for the others.
    for (const { excluded } of reports.values())
      for (const exclusion of excluded) this.#agreement.addExclusion(exclusion);
    for (const [peerId, { failed }] of reports) for (const failure of failed) this.#failCollective(peerId, failure);
    this.#agreement.tellExclusions();
    this.#effects.note(
      `rebuilt from ${reports.size} reports: epoch ${this.#epoch}, boundary ${this.#boundaries.decided}`,
    );
    if (views.length > 0) this.#newEpoch(this.#missingFrom(this.#generations.all), null, true);
    for (const generation of this.#generations.all) {
      for (const peerId of generation.joined) {
        const peer = this.#roster.get(peerId);
        if (peer !== undefined && peer.state !== 'member')
          this.#admit(peer, generation, this.#answers.admitted(generation));
      }
    }
    this.#lose(recovery.laggards());
    this.#letIn();
  }

  /** Members that have not come back. */
  #missingFrom(generations: Iterable<Generation>): Lost[] {
    const members = new Set([...generations].flatMap((generation) => generation.members));
    const missing = [...members].filter((peerId) => !this.#roster.has(peerId));
    return missing.map((peerId) => ({ peerId, reason: 'it did not come back to the coordinator' }));
  }

  // --- losses ------------------------------------------------------------------------------------------------------

  #closed(peerId: PeerId): void {
    const peer = this.#roster.get(peerId);
    if (peer !== undefined && this.#roster.onDisconnected(peer, this.#now))
      this.#lose([{ peerId, reason: 'its connections closed' }]);
  }

  #onLinkClosed(reporter: PeerRecord, peerId: PeerId): void {
    const peer = this.#roster.get(peerId);
    if (peer === undefined || peer.state !== 'member' || reporter.state !== 'member') return;
    if (this.#roster.onLinkClosed(peer, this.#now)) this.#lose([{ peerId, reason: 'its connections closed' }]);
    else this.#repairSoon(pairOf(reporter.peerId, peerId));
  }

  /** A peer can't reach another any more, or can again. Only the former concerns what is open. */
  #onPath(reporter: PeerRecord, { peerId, open }: Extract<PeerMessage, { type: 'path' }>): void {
    if (!this.#roster.has(peerId) || peerId === reporter.peerId) return;
    const isCut = this.#ways.onPath(reporter.peerId, peerId, open);
    if (isCut) this.#repairSoon(pairOf(reporter.peerId, peerId));
  }

  #repairSoon(pair: Pair): void {
    // Where nothing that is open uses the link, it may close without harm.
    if ([...this.#generations.all].every((generation) => goesRound(generation, pair))) return;
    this.#ways.repairSoon(pair, this.#now);
  }

  #lose(lost: readonly Lost[]): void {
    const members: Lost[] = [];
    for (const { peerId, reason } of lost) {
      const peer = this.#roster.get(peerId);
      if (peer === undefined) continue;
      this.#roster.remove(peer, reason, this.#now);
      this.#ways.forget(peerId);
      this.#stragglers.forget(peerId);
      this.#tuning.forget(peerId);
      if (peer.state === 'member') members.push({ peerId, reason });
    }
    this.#boundaries.keep((peerId) => this.#roster.has(peerId));
    if (this.#recovery !== null) return;
    if (members.length > 0) this.#newEpoch(members, null, false);
    this.#letIn();
  }

  /**
   * Shrinks every generation by the lost, and asks the survivors what they hold of it.
   *
   * @param isBack messages may have been lost: everything that is open is concerned
   */
  #newEpoch(lost: readonly Lost[], broken: Pair | null, isBack: boolean): void {
    this.#epoch += 1;
    // A decision that this one overtakes was to make good for lost messages: now this one has to.
    const resumed = isBack || this.#decision?.resumed === true;
    const cuts = this.#ways.cutsAmong(this.#generations.members);
    const gone = new Set(lost.map((one) => one.peerId));
    const change = { epoch: this.#epoch, gone, broken, isForAll: resumed, cuts };
    this.#agreement.reopen(this.#generations.change(change));
    const survivors = this.#generations.members;
    if (survivors.length === 0) {
      this.#decision = null;
      this.#agreement.dropHeld();
      this.#generations.clear();
      return;
    }
    this.#decision = new Decision(this.#epoch, resumed, survivors);
    const loss: Extract<CoordinatorMessage, { type: 'loss' }> = {
      type: 'loss',
      epoch: this.#epoch,
      lost: [...lost],
      broken: broken === null ? null : [...broken],
      cuts: cuts.map(([one, other]) => [one, other]),
      resumed,
    };
    for (const peerId of survivors) {
      const missed = this.#roster.takeMissed(peerId).filter((one) => !gone.has(one.peerId));
      this.#effects.send(peerId, missed.length === 0 ? loss : { ...loss, lost: [...lost, ...missed] });
    }
  }

  #onProgress(peer: PeerRecord, message: Extract<PeerMessage, { type: 'progress' }>): void {
    const decision = this.#decision;
    if (decision?.onProgress(peer.peerId, message) !== true) return;
    this.#decision = null;
    this.#failHalfReturned(decision);
    const verdict = decision.conclude(this.#agreement);
    for (const { id } of verdict.committed) this.#agreement.onCommitted(id);
    const decide = { type: 'decide', epoch: decision.epoch, ...verdict } as const;
    for (const peerId of decision.survivors) this.#effects.send(peerId, decide);
  }

  /** An eager call from which only some members returned can't be redone: it fails for the others, whenever they make it. */
  #failHalfReturned(decision: Decision): void {
    for (const { id, by } of decision.halfReturned((one) => this.#generations.of(one)?.members)) {
      const message = `${by} returned from it before a peer was lost.`;
      this.#failCollective(by, { id, generation: generationOf(id), code: 'lost', message });
    }
  }

  // --- time --------------------------------------------------------------------------------------------------------

  #tick(): void {
    const before = this.#lastTick;
    this.#lastTick = this.#now;
    this.#findLost(before);
    if (this.#recovery !== null && this.#now >= this.#recovery.until) this.#rebuild(this.#recovery);
    if (this.#inGrace && this.#now >= this.#graceUntil) this.#endGrace();
    if (this.#now - this.#lastLook >= LOOK_MS) this.#look();
    this.#tuning.work();
    if (this.#decision === null && this.#recovery === null)
      for (const { from, to } of this.#tuning.takeProbes(this.#now))
        this.#effects.send(from, { type: 'probe', peerId: to });
    if (this.#roster.hasWaited(before ?? 0, this.#now)) this.#letIn();
    for (const pair of this.#ways.takeRepairs(this.#now))
      if (pair.every((peerId) => this.#roster.isConnected(peerId))) this.#newEpoch([], pair, false);
  }

  #findLost(lastTick: number | null): void {
    if (lastTick !== null && this.#now - lastTick > ASLEEP_HEARTBEATS * this.#options.heartbeatMs) {
      this.#roster.forgive(this.#now);
      return;
    }
    const lost = this.#roster.findLost(this.#now);
    if (lost.length > 0) this.#lose(lost);
  }

  #endGrace(): void {
    this.#inGrace = false;
    // Newcomers may be all that came back.
    if (this.#recovery === null) for (const peer of this.#roster.all) this.#roster.dismissGone(peer);
    this.#letIn();
  }

  /** Once a second: who holds the others up, and what a better view would be. */
  #look(): void {
    this.#lastLook = this.#now;
    this.#nameSlow();
    const { current } = this.#generations;
    if (current !== null && this.#decision === null) this.#tuning.look(current, this.#now);
  }
}
