/** The tab's part of the example: joins the run that the page's address names (`#run=…&token=…&steps=…`), and trains. */
import { join } from '../../src/browser/index.ts';
import { unpackExamples } from './digits.ts';
import { trainDigits } from './training.ts';

const log = document.querySelector('pre');

function say(message: object): void {
  const line = JSON.stringify(message);
  console.info(line); // for the program that opened the tab
  if (log !== null) log.textContent = `${line}\n${log.textContent}`;
}

async function load(name: string): Promise<ArrayBuffer> {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} could not be loaded: status ${response.status}`);
  return response.arrayBuffer();
}

const link = new URLSearchParams(location.hash.slice(1));
try {
  const [images, labels] = await Promise.all([load('./images.bin'), load('./labels.bin')]);
  const training = unpackExamples(new Uint16Array(images), new Uint8Array(labels));
  const group = await join(location.origin.replace(/^http/, 'ws'), {
    run: link.get('run') ?? 'digits',
    token: link.get('token') ?? '',
    startWorldSize: Number(link.get('peers') ?? 1),
    site: 'browser',
  });
  say({ type: 'joined', peerId: group.peerId, members: group.members });
  await trainDigits(group, training, Number(link.get('steps') ?? 100), (progress) =>
    say({ type: 'step', ...progress }),
  );
  await group.leave();
  say({ type: 'done' });
} catch (error) {
  say({ type: 'failed', message: String(error) });
}
