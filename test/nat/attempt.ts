/** Two hosts that try to connect by WebRTC: starts a probe on each, and carries what they have to tell one another. */
import { built } from '../harness/built.ts';
import type { HostProcess } from './host-process.ts';
import type { Host } from './internet.ts';
import type { ProbeNews, ProbeOrder, ProbeReport, ProbeSetting } from './probe.ts';

const PROBE = built('test/nat/probe.ts');

type AttemptOptions = Omit<ProbeSetting, 'role'>;

/** @returns what the one who offers and the one who answers found */
export async function attempt(
  offerer: Host,
  answerer: Host,
  options: AttemptOptions,
): Promise<readonly [ProbeReport, ProbeReport]> {
  const start = (host: Host, role: ProbeSetting['role']) => {
    const setting: ProbeSetting = { role, ...options };
    return host.node(PROBE, [JSON.stringify(setting)]);
  };
  const probes = [start(offerer, 'offer'), start(answerer, 'answer')] as const;
  const [offering, answering] = probes;
  try {
    await Promise.all(probes.map((probe) => probe.message<ProbeNews>())); // ready
    for (const probe of probes) order(probe, { type: 'begin' });
    return await Promise.all([reportOf(offering, answering), reportOf(answering, offering)]);
  } finally {
    await Promise.all(probes.map((probe) => probe.kill()));
  }
}

function order(probe: HostProcess, what: ProbeOrder): void {
  probe.send(what);
}

/** Passes on to the other probe what this one tells, until it reports. */
async function reportOf(probe: HostProcess, other: HostProcess): Promise<ProbeReport> {
  for (;;) {
    const news = await probe.message<ProbeNews>();
    if (news.type === 'report') return news;
    if (news.type !== 'ready') order(other, news);
  }
}
