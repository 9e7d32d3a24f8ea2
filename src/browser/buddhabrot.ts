/** The picture that the visitors of the page draw together: of the points that leave the Mandelbrot map, where they went by. */

export const PICTURE_SIZE = 256;

const MOST_STEPS = 400;
const LEAST_STEPS = 8;

/** Follows so many random points, and counts where they went; `counts` has a number for each pixel. */
export function drawPoints(counts: Float32Array, points: number, random: () => number): void {
  for (let point = 0; point < points; point++) {
    const re = -2 + 3 * random();
    const im = -1.5 + 3 * random();
    const steps = stepsToLeave(re, im);
    if (steps < LEAST_STEPS || steps === MOST_STEPS) continue;
    let x = 0;
    let y = 0;
    for (let step = 0; step < steps; step++) {
      [x, y] = [x * x - y * y + re, 2 * x * y + im];
      const row = Math.floor(((x + 2) / 3) * PICTURE_SIZE);
      const column = Math.floor(((y + 1.5) / 3) * PICTURE_SIZE);
      if (row >= 0 && row < PICTURE_SIZE && column >= 0 && column < PICTURE_SIZE)
        counts[row * PICTURE_SIZE + column]! += 1;
    }
  }
}

function stepsToLeave(re: number, im: number): number {
  let x = 0;
  let y = 0;
  for (let step = 0; step < MOST_STEPS; step++) {
    const squareX = x * x;
    const squareY = y * y;
    if (squareX + squareY > 4) return step;
    y = 2 * x * y + im;
    x = squareX - squareY + re;
  }
  return MOST_STEPS;
}

/** As RGBA, brighter where more went by. */
export function colours(counts: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(4 * counts.length);
  let most = 1;
  for (const count of counts) most = Math.max(most, count);
  for (const [index, count] of counts.entries()) {
    const light = Math.sqrt(count / most);
    pixels.set([255 * light ** 1.6, 255 * light ** 1.1, 255 * Math.min(1, 1.6 * light), 255], 4 * index);
  }
  return pixels;
}
