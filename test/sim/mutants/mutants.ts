/** Defects that the simulator must find: each changes one place of the source, as somebody might by mistake. */

export interface Mutant {
  readonly title: string;
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
  /** Weather in which it shows; all kinds where none is named. */
  readonly faults?: string;
}

export const MUTANTS: readonly Mutant[] = [
  {
    title: 'commit is sent one vote early',
    file: 'src/membership/agreement.ts',
    find: 'if (held.by.size < members.length) return true;',
    replace: 'if (held.by.size < members.length - 1) return true;',
  },
  {
    title: 'the epoch of a data frame is not checked',
    file: 'src/collectives/delivery.ts',
    find: 'const live = operation.attempt !== null && header.epoch === epoch && !operation.mismatched.has(from);',
    replace: 'const live = operation.attempt !== null && !operation.mismatched.has(from);',
  },
  {
    title: 'the result is built in the tensor itself, not in scratch',
    file: 'src/collectives/attempts.ts',
    find: 'const apart = call.atomic && !keeps && byteLength > 0;',
    replace: 'const apart = keeps && byteLength < 0;',
  },
  {
    title: 'an epoch is given twice when a peer or the coordinator comes back',
    file: 'src/membership/coordinator.ts',
    find: '    this.#epoch += 1;\n    // A decision',
    replace: '    if (!isBack) this.#epoch += 1;\n    // A decision',
  },
  {
    title: 'what one survivor holds is committed',
    file: 'src/membership/decision.ts',
    find: 'return members?.every((peerId) => this.#held.get(peerId)?.get(id) === epoch) === true;',
    replace: 'return members?.some((peerId) => this.#held.get(peerId)?.get(id) === epoch) === true;',
  },
  {
    title: 'results of different attempts count as the same',
    file: 'src/membership/decision.ts',
    find: 'this.#held.get(peerId)?.get(id) === epoch',
    replace: 'this.#held.get(peerId)?.has(id) === (epoch > 0)',
    faults: 'cut-control,cut,slow',
  },
  {
    title: 'a call starts between a loss and its decision',
    file: 'src/collectives/attempts.ts',
    find: 'if (context.undecided) {',
    replace: 'if (context.undecided && context.members.length === 0) {',
  },
  {
    title: 'an eager call from which some have returned is redone by the others',
    file: 'src/membership/coordinator.ts',
    find: '    this.#failHalfReturned(decision);\n',
    replace: '    if (decision.epoch === 0) this.#failHalfReturned(decision);\n',
  },
  {
    title: 'what was committed lately is not told to those who missed it',
    file: 'src/collectives/collectives.ts',
    find: 'resumed ? [...this.#settlement.unsettled, ...this.#settlement.committed] : []',
    replace: 'resumed ? [...this.#settlement.unsettled, ...this.#settlement.committed.slice(0, 0)] : []',
    faults: 'cut-control,coordinator-crash',
  },
  {
    title: 'an answer at a boundary that was lost on the way is not given again',
    file: 'src/membership/roster.ts',
    find: '    peer.answered = report.boundary;\n',
    replace: '',
  },
  {
    title: 'a mean is taken over the members before a loss',
    file: 'src/collectives/attempts.ts',
    find: '      contributors: members.length,\n',
    replace: '      contributors: members.length + (operation.retries > 0 ? 1 : 0),\n',
  },
  {
    title: 'peers that missed their introduction stay strangers',
    file: 'src/membership/coordinator.ts',
    find: '    this.#roster.acquaint(peer);\n',
    replace: '    if (report.term === 0) this.#roster.acquaint(peer);\n',
  },
  {
    title: 'a lost peer stays in the generation',
    file: 'src/membership/generations.ts',
    find: 'generation.members = generation.members.filter((peerId) => !gone.has(peerId));',
    replace: 'generation.members = generation.members.filter((peerId) => peerId !== "");',
  },
  {
    title: 'a call that failed while its bytes were in flight never ends',
    file: 'src/collectives/settlement.ts',
    find: "    if (operation.state === 'ended') return;\n    this.retire(operation);",
    replace:
      "    if (operation.state === 'ended' || operation.state === 'failing') return;\n    this.retire(operation);",
  },
  {
    title: 'a restarted coordinator takes no heed of epochs that it did not give',
    file: 'src/membership/coordinator.ts',
    find: '      this.#epoch = Math.max(this.#epoch, report.epoch);\n',
    replace: '',
  },
  {
    title: 'what a tree adds depends on which child arrives first',
    file: 'src/collectives/executor.ts',
    find: '    const current = this.#step[segment]!;\n    const index',
    replace: `    const current = this.#step[segment]!;
    const ahead = chunk.steps.findIndex((step, at) => at >= current && step.do === 'reduce' && step.from === from);
    if (chunk.segments === 1 && this.#arriving[segment] === 0 && ahead === current + 1 && chunk.steps[current].do === 'reduce')
      chunk.steps = chunk.steps.with(current, chunk.steps[ahead]).with(ahead, chunk.steps[current]);
    const index`,
  },
  {
    title: 'what one survivor has finished is kept',
    file: 'src/membership/decision.ts',
    find: '(common, one) => intersectRanges(common, one)',
    replace: '(common) => common',
    faults: 'crash,cut',
  },
  {
    title: 'a kept range is told with those who redid the rest',
    file: 'src/collectives/salvage.ts',
    find: 'contributors: contributors.get(epoch) ?? [] }));',
    replace: 'contributors: contributors.get(attempt.epoch) ?? [] }));',
    faults: 'crash,stop',
  },
  {
    title: 'what is redone of a salvaged mean is taken over all who took part at first',
    file: 'src/collectives/attempts.ts',
    find: '      contributors: members.length,\n',
    replace:
      '      contributors: operation.kept.length > 0 ? [...operation.contributors.values()][0].length : members.length,\n',
    faults: 'crash,cut-control',
  },
  {
    title: 'members go round what they know to be cut, and not round what the epoch says',
    file: 'src/collectives/collectives.ts',
    find: 'context.cuts = new Cuts(cuts);',
    replace: 'context.cuts = new Cuts(cuts.filter((cut) => cut.includes(this.#around.self)));',
    faults: 'block,partition',
  },
  {
    title: 'relayed frames are handed on to whom they came from',
    file: 'src/collectives/delivery.ts',
    find: 'const next = path[at + 1];',
    replace: 'const next = at + 1 < path.length - 1 || path.length === at + 1 ? path[at + 1] : path[at - 1];',
    faults: 'block,partition',
  },
  {
    title: 'links that close between members for whom nobody can relay are not repaired',
    file: 'src/membership/ways.ts',
    find: 'return reached.has(to);',
    replace: 'return true;',
    faults: 'block,slow',
  },
  {
    title: 'who is left out of a collective is waited for all the same',
    file: 'src/membership/exclusions.ts',
    find: 'return exclusion === undefined ? members : members.filter((peerId) => !exclusion.peers.includes(peerId));',
    replace: 'return members;',
    faults: 'late',
  },
  {
    title: 'an announcement that differs is accepted',
    file: 'src/collectives/delivery.ts',
    find: 'if (!sameBytes(payload, attempt.announcement.subarray(HEADER_BYTES))) {',
    replace: 'if (payload.length === 0) {',
    faults: 'wrong',
  },
  {
    title: 'newcomers have a say in what the run has learnt',
    file: 'src/state/census.ts',
    find: 'return synced.length > 0 ? synced : members;',
    replace: 'return members;',
    faults: 'crash,join',
  },
  {
    title: 'a sync ends although one member is still behind',
    file: 'src/state/census.ts',
    find: 'isSettled: behind.length === 0,',
    replace: 'isSettled: behind.length <= 1,',
    faults: 'crash,join',
  },
];
