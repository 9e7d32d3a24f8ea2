/** The page that a coordinator serves at `/dashboard`: what its runs do, live. It asks for all that it shows as whoever looks at it. */
import type { CoordinatorState } from '../eyes/coordinator-state.ts';
import { clock, count, rate, seconds, span } from '../eyes/format.ts';
import type { RunState } from '../eyes/run-state.ts';
import { Charts } from './charts.ts';
import { Dismissal } from './dismissal.ts';
import { find, Keyed, setAttributes, setText } from './dom.ts';
import type { Shape } from './layout.ts';
import { keepToken, type LinkState, Live, token } from './live.ts';
import { Model } from './model.ts';
import { PeersTable } from './peers-table.ts';
import { Sites, siteName } from './sites.ts';
import { TimelineView } from './timeline-view.ts';
import { Topology } from './topology.ts';

const model = new Model();
const sites = new Sites();
const dismissal = new Dismissal();
const topology = new Topology(find('topology'), sites);
const timeline = new TimelineView(find('timeline'), find('log'));
const charts = new Charts({ rate: find('chart-rate'), latency: find('chart-latency'), calls: find('chart-calls') });
const runs = find<HTMLSelectElement>('run');
const runOptions = new Keyed<HTMLOptionElement>((key) => new Option(key, key));
const legend = new Keyed<HTMLLIElement>(() => document.createElement('li'));
const callRows = new Keyed<HTMLTableRowElement>(() => {
  const row = document.createElement('tr');
  for (let at = 0; at < 6; at++) row.insertCell().className = at === 0 ? '' : 'n';
  return row;
});
let chosen: string | null = null;

const peers = new PeersTable(sites, {
  onDismiss: (peerId) => {
    const run = model.state?.run?.run;
    if (run !== undefined) dismissal.ask(run, peerId);
  },
  onChosen: (peerId) => {
    chosen = peerId;
    topology.show(model.state?.run ?? null, model.happenings, chosen);
  },
});

function showCoordinator(coordinator: CoordinatorState | null, now: number): void {
  if (coordinator === null) return;
  setText(
    find('role'),
    coordinator.leads ? 'leads' : `stands by${coordinator.leader === null ? '' : ` for ${coordinator.leader}`}`,
  );
  setText(find('term'), String(coordinator.term));
  setText(find('uptime'), span(now - coordinator.startedAt));
}

/** What is wrong, the worst first; null: nothing. */
function troubleOf(run: RunState): readonly [string, string] | null {
  const slow = run.members.filter((member) => member.slow);
  const away = run.members.filter(({ path }) => path === null);
  if (run.recovering) return ['Recovering', 'waits for the members'];
  if (run.cuts.length > 0) return ['Cut', `${run.cuts.length} pairs can't reach one another`];
  if (slow.length > 0) return ['Slow', `${slow.map(({ peerId }) => peerId).join(', ')} holds the others up`];
  if (away.length > 0) return ['Away', `${away.length} without the coordinator`];
  return null;
}

function showTiles(run: RunState | null): void {
  const tile = (name: string, text: string, more: string) => {
    setText(find(`tile-${name}`), text);
    setText(find(`tile-${name}-more`), more);
  };
  if (run === null) {
    for (const name of ['members', 'rate', 'calls', 'p50', 'epoch']) tile(name, '–', '');
    tile('state', 'Nobody', 'no run of this name');
    setAttributes(find('tile-health'), { 'data-level': 'none' });
    return;
  }
  const { members, joining, totals, recent } = run;
  const placed = new Set(members.map(({ site }) => site)).size;
  tile(
    'members',
    String(members.length),
    joining.length > 0 ? `${joining.length} joining` : `${placed} ${placed === 1 ? 'site' : 'sites'}`,
  );
  tile('rate', rate(run.sentPerSecond), `${count(members.reduce((sum, { open }) => sum + open, 0))} calls open`);
  tile('calls', count(totals.committed), `${count(totals.aborted)} failed for all`);
  tile('p50', seconds(recent.p50), `p99 ${seconds(recent.p99)}`);
  const lost = Object.values(totals.losses).reduce((sum, one) => sum + one, 0);
  tile('epoch', String(run.epoch), `generation ${run.generation}, boundary ${count(totals.boundary)}`);
  const trouble = troubleOf(run);
  tile('state', trouble?.[0] ?? 'Well', trouble?.[1] ?? `${count(totals.joins)} came, ${count(lost)} went`);
  setAttributes(find('tile-health'), { 'data-level': trouble === null ? 'good' : 'warn' });
}

function showLegend(run: RunState | null): void {
  const counts = new Map<string, number>();
  for (const { site } of run?.members ?? []) counts.set(site, (counts.get(site) ?? 0) + 1);
  const shown = [...counts].slice(0, 12);
  for (const [site, members] of shown) {
    const item = legend.get(site);
    setAttributes(item, { class: sites.classOf(site) });
    setText(item, `${siteName(site)} · ${members}`);
  }
  legend.show(
    find('legend'),
    shown.map(([site]) => site),
  );
}

function showCalls(run: RunState | null): void {
  const calls = run?.calls ?? [];
  for (const { kind, done, failed, retries, p50, p99 } of calls) {
    const texts = [kind, count(done), count(failed), count(retries), seconds(p50), seconds(p99)];
    for (const [at, cell] of [...callRows.get(kind).cells].entries()) setText(cell, texts[at] ?? '');
  }
  callRows.show(
    find('calls-body'),
    calls.map(({ kind }) => kind),
  );
}

function showRuns(): void {
  const { state } = model;
  const names = (state?.runs ?? []).map(({ run }) => run);
  const shown = state?.run?.run ?? (runs.value || names[0]);
  if (shown !== undefined && shown !== '' && !names.includes(shown)) names.unshift(shown);
  for (const { run, members } of state?.runs ?? []) setText(runOptions.get(run), `${run} (${members})`);
  runOptions.show(runs, names);
  if (shown !== undefined && document.activeElement !== runs) runs.value = shown;
}

function show(): void {
  const { state } = model;
  if (state === null) return;
  const { run, at, coordinator } = state;
  showCoordinator(coordinator, at);
  showRuns();
  showTiles(run);
  showLegend(run);
  showCalls(run);
  topology.show(run, model.happenings, chosen);
  timeline.show(at, model.seconds, model.happenings);
  charts.show(model.seconds);
  peers.show(run);
  const last = model.seconds.at(-1);
  setText(find('chart-rate-now'), rate(run?.sentPerSecond ?? null));
  setText(
    find('chart-latency-now'),
    `p50 ${seconds(run?.recent.p50 ?? null)}, p99 ${seconds(run?.recent.p99 ?? null)}`,
  );
  setText(find('chart-calls-now'), last === undefined ? '' : `${count(last.committed)}/s`);
  document.title = run === null ? 'Skein' : `${run.run} · ${run.members.length} · Skein`;
  const time = find('at');
  setText(time, clock(at));
  setAttributes(time, { datetime: new Date(at).toISOString() });
}

function showLink(state: LinkState, text: string): void {
  const pill = find('link');
  setAttributes(pill, { 'data-state': state });
  setText(pill, text);
}

function showDoor(error: string | null): void {
  find('door').hidden = error === null;
  find('main').hidden = error !== null;
  find('forget').hidden = token() === '';
  setText(find('door-error'), error !== null && token() !== '' ? error : '');
  if (error === null) return;
  showLink('closed', 'Protected');
  find<HTMLInputElement>('token').focus();
}

let pending = 0;

/** Once for all that came together. */
function showSoon(): void {
  if (pending === 0)
    pending = requestAnimationFrame(() => {
      pending = 0;
      show();
    });
}

const live = new Live({
  onHistory: (history) => model.onHistory(history),
  onHappenings: (happenings) => model.onHappenings(happenings),
  onState: (state) => {
    if (find('main').hidden || model.state === null) showDoor(null);
    model.onState(state);
    showSoon();
  },
  onLink: showLink,
  onRefused: (refusal) => showDoor(refusal),
});

find('door-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = find<HTMLInputElement>('token');
  keepToken(input.value.trim());
  input.value = '';
  showLink('waiting', 'Connecting …');
  live.start(null);
});

find('forget').addEventListener('click', () => {
  keepToken('');
  live.stop();
  location.reload();
});

runs.addEventListener('change', () => live.start(runs.value));

for (const input of document.querySelectorAll<HTMLInputElement>('input[name=shape]'))
  input.addEventListener('change', () => {
    topology.shape = input.value as Shape; // the values of the page
    topology.show(model.state?.run ?? null, model.happenings, chosen);
  });

for (const input of document.querySelectorAll<HTMLInputElement>('input[name=span]'))
  input.addEventListener('change', () => {
    timeline.span = Number(input.value);
    timeline.show(model.state?.at ?? Date.now(), model.seconds, model.happenings);
  });

live.start(null);
