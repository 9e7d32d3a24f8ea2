/**
 * The middle of a long pipe (`long-pipe.ts`), in a namespace of its own: takes whole frames from one macvtap device and gives them, later,
 * to the other. Such a device is a file that is read and written, and passes on what the senders' TCP has not cut in packets yet, so that
 * there are few. The end of stdin is the end of it.
 */
import { execFileSync } from 'node:child_process';
import { constants, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Shape, Shaper, wireBytes } from './shaper.ts';

/** How often it looks (ms), and frames that it takes from one side before it looks at the other. */
const TURN_MS = 1;
const FRAMES_AT_ONCE = 64;

const MAX_FRAME_BYTES = 70_000;
/** Late frames would look like a way that is slower than it is. */
const PRIORITY = -15;

const { devices, shape } = JSON.parse(process.argv[2]!) as { devices: [string, string]; shape: Shape }; // by long-pipe.ts

/** Opens the file of a device, which is made here: where `/dev` has one, its name may be that of another namespace's. */
function open(device: string): number {
  const folder = `/sys/class/net/${device}/macvtap`;
  const [tap] = readdirSync(folder);
  const [major, minor] = readFileSync(join(folder, tap!, 'dev'), 'utf8')
    .trim()
    .split(':');
  const place = mkdtempSync(join(tmpdir(), 'skein-pipe-'));
  try {
    execFileSync('mknod', [join(place, device), 'c', major!, minor!]);
    return openSync(join(place, device), constants.O_RDWR | constants.O_NONBLOCK);
  } finally {
    rmSync(place, { recursive: true });
  }
}

const files = devices.map(open) as [number, number];
const ways = [
  { from: files[0], to: files[1], shaper: new Shaper(shape) },
  { from: files[1], to: files[0], shaper: new Shaper(shape) },
];
const room = Buffer.alloc(MAX_FRAME_BYTES);

/** The next frame that has come; null when there is none. */
function read(file: number): Buffer | null {
  try {
    return Buffer.from(room.subarray(0, readSync(file, room)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return null;
    throw error;
  }
}

function turn(): void {
  for (const { from, to, shaper } of ways) {
    for (let count = 0; count < FRAMES_AT_ONCE; count++) {
      const frame = read(from);
      if (frame === null) break;
      shaper.arrive(frame, wireBytes(frame), performance.now());
    }
    const now = performance.now();
    for (let frame = shaper.depart(now); frame !== null; frame = shaper.depart(now)) writeSync(to, frame);
  }
  setTimeout(turn, TURN_MS);
}

function tell(): void {
  const counts = ways.map(({ shaper: { passed, dropped } }) => ({ passed, dropped }));
  process.send?.({ at: performance.now(), cpu: process.cpuUsage(), counts });
}

setPriority(PRIORITY);
process.on('message', tell);
process.on('disconnect', () => process.exit(0));
turn();
tell();
