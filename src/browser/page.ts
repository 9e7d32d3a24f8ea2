/**
 * The page that `skein coordinator --serve-page` serves: joins the run that its address names (`#run=…&token=…`), takes part in the
 * run's steps, and shows how it goes. Every member of the run must make the same calls, so it is for runs of such pages.
 */
import { colours, drawPoints, PICTURE_SIZE } from './buddhabrot.ts';
import { type Group, join, type Report, SkeinError } from './index.ts';

/** Points that are followed between two looks at the clock, and for how long in a step (ms). */
const POINTS = 2_000;
const WORK_MS = 25;

/** Over how many steps rates are told. */
const RATE_STEPS = 20;

function find<E extends Element>(selector: string): E {
  const element = document.querySelector<E>(selector);
  if (element === null) throw new Error(`The page has no ${selector}.`);
  return element;
}

const form = find<HTMLFormElement>('form');
const runInput = find<HTMLInputElement>('input[name=run]');
const tokenInput = find<HTMLInputElement>('input[name=token]');
const joinButton = find<HTMLButtonElement>('button[name=join]');
const leaveButton = find<HTMLButtonElement>('button[name=leave]');
const status = find<HTMLOutputElement>('output');
const rows = find<HTMLTableSectionElement>('tbody');
const context = find<HTMLCanvasElement>('canvas').getContext('2d');

function show(id: string, text: string): void {
  find(`#${id}`).textContent = text;
}

function row(texts: readonly string[]): HTMLTableRowElement {
  const element = document.createElement('tr');
  for (const text of texts) element.insertCell().textContent = text;
  return element;
}

function showMembers(group: Group): void {
  show('peer', group.peerId);
  show('epoch', String(group.epoch));
  show('members', String(group.worldSize));
  rows.replaceChildren(
    ...group.members.map(({ rank, peerId, site, path }) =>
      row([String(rank), peerId, site, peerId === group.peerId ? 'itself' : (path ?? 'not yet')]),
    ),
  );
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

/** Rates and totals of the steps so far. */
class Progress {
  steps = 0;
  #sent = 0;
  #received = 0;
  #retries = 0;
  readonly #times: number[] = [];

  add(report: Report): void {
    this.steps += 1;
    this.#sent += report.bytesSent;
    this.#received += report.bytesReceived;
    this.#retries += report.retries;
    this.#times.push(performance.now());
    if (this.#times.length > RATE_STEPS) this.#times.shift();
  }

  show(): void {
    const [first] = this.#times;
    const elapsed = first === undefined ? 0 : performance.now() - first;
    show('steps', String(this.steps));
    show('rate', elapsed === 0 ? '–' : ((1_000 * (this.#times.length - 1)) / elapsed).toFixed(1));
    show('bytes', `${megabytes(this.#sent)}, ${megabytes(this.#received)}`);
    show('retries', String(this.#retries));
  }
}

/** Tells pictures apart: two members that show the same have the same bits (FNV-1a). */
function fingerprint(counts: Float32Array): string {
  let hash = 0x811c9dc5;
  for (const word of new Uint32Array(counts.buffer, counts.byteOffset, counts.length)) {
    hash = Math.imul(hash ^ word, 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, '0');
}

function work(own: Float32Array): void {
  const end = performance.now() + WORK_MS;
  do drawPoints(own, POINTS, Math.random);
  while (performance.now() < end);
}

async function takePart(group: Group, isOver: () => boolean): Promise<void> {
  const own = new Float32Array(PICTURE_SIZE * PICTURE_SIZE);
  const shared = new Float32Array(own.length);
  const progress = new Progress();
  for await (const step of group.steps()) {
    if (isOver()) return;
    work(own);
    shared.set(own);
    progress.add(await group.allReduce(shared, { tag: 'picture' }));
    context?.putImageData(new ImageData(colours(shared), PICTURE_SIZE), 0, 0);
    show('hash', `${fingerprint(shared)} at boundary ${step.boundary}`);
    showMembers(group);
    progress.show();
  }
}

async function visit(): Promise<void> {
  joinButton.disabled = true;
  status.textContent = 'Joining …';
  try {
    const address = location.origin.replace(/^http/, 'ws');
    const group = await join(address, {
      run: runInput.value,
      token: tokenInput.value,
      site: 'browser',
      timeout: 60_000,
    });
    let isOver = false;
    leaveButton.onclick = () => {
      isOver = true;
    };
    leaveButton.disabled = false;
    status.textContent = `Joined run ${runInput.value}.`;
    group.on('view', () => showMembers(group));
    group.on('peer-lost', ({ peerId, reason }) => {
      status.textContent = `${peerId} was lost: ${reason}.`;
    });
    group.on('coordinator-lost', () => {
      status.textContent = 'The coordinator is lost; waiting for it.';
    });
    group.on('coordinator-back', () => {
      status.textContent = 'The coordinator is back.';
    });
    try {
      await takePart(group, () => isOver);
      status.textContent = 'Left.';
    } finally {
      await group.leave();
    }
  } catch (error) {
    status.textContent = error instanceof SkeinError ? error.message : String(error);
  } finally {
    joinButton.disabled = false;
    leaveButton.disabled = true;
  }
}

form.onsubmit = (event) => {
  event.preventDefault();
  void visit();
};

const link = new URLSearchParams(location.hash.slice(1));
if (link.has('token')) tokenInput.value = link.get('token') ?? '';
if (link.has('run')) {
  runInput.value = link.get('run') ?? '';
  void visit();
}
