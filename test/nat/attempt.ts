/** Hosts that try to connect by WebRTC: a probe runs on each, and what two have to tell one another is carried here. */
import { built } from '../harness/built.ts';
import type { HostProcess } from './host-process.ts';
import type { Host } from './internet.ts';
import type { ProbeNews, ProbeOrder, ProbeReport, ProbeSetting } from './probe.ts';

/** As long as the longest file of tests (ms). */
const DEADLINE_MS = 300_000;

type AttemptOptions = Omit<ProbeSetting, 'role'>;

/** A host that takes part in attempts, in several at the same time if need be. */
export class ProbedHost {
  readonly ready: Promise<unknown>;
  readonly #process: HostProcess;
  readonly #listeners: Map<number, (news: ProbeNews['news']) => void> = new Map();

  constructor(host: Host) {
    this.#process = host.node(built('test/nat/probe.ts'), [], { deadlineMs: DEADLINE_MS });
    this.ready = this.#process.message();
    this.#process.child.on('message', ({ attempt, news }: ProbeNews) => this.#listeners.get(attempt)?.(news));
  }

  /** Tries to connect to another host that does so at the same time. */
  report(attempt: number, other: ProbedHost, setting: ProbeSetting): Promise<ProbeReport> {
    return new Promise((resolve, reject) => {
      this.#listeners.set(attempt, (news) => {
        if (news.type === 'report') resolve(news);
        else other.#order({ attempt, order: news });
      });
      this.#order({ attempt, order: { type: 'begin', setting } });
      void this.#process.ended.then((how) => reject(new Error(`The probe ended (${how}):\n${this.#process.output}`)));
    });
  }

  forget(attempt: number): void {
    this.#listeners.delete(attempt);
    this.#order({ attempt, order: { type: 'end' } });
  }

  #order(order: ProbeOrder): void {
    this.#process.send(order);
  }
}

let attempts = 0;

/** @returns what the one who offers and the one who answers found */
export async function attempt(
  offerer: ProbedHost,
  answerer: ProbedHost,
  options: AttemptOptions,
): Promise<readonly [ProbeReport, ProbeReport]> {
  const number = attempts++;
  await Promise.all([offerer.ready, answerer.ready]);
  try {
    return await Promise.all([
      offerer.report(number, answerer, { role: 'offer', ...options }),
      answerer.report(number, offerer, { role: 'answer', ...options }),
    ]);
  } finally {
    offerer.forget(number);
    answerer.forget(number);
  }
}
