import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { drawCharts, type Records } from '../../bench/harness/charts.ts';
import { type PanelChart, panelsSvg } from '../../bench/harness/panels.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

function record<Name extends keyof Records>(name: Name): Records[Name] {
  return JSON.parse(readFileSync(`${ROOT}/bench/results/${name}.json`, 'utf8')) as Records[Name];
}

const RECORDS: Records = { allreduce: record('allreduce'), scaling: record('scaling') };

describe('the charts of the README', () => {
  it('are what their records make: `npm run charts` draws them', async () => {
    const drawings = await drawCharts(RECORDS);
    for (const { file, svg } of drawings)
      expect(svg === readFileSync(`${ROOT}/docs/${file}`, 'utf8'), `docs/${file} is as its record`).toBe(true);
    const committed = readdirSync(`${ROOT}/docs`).filter((file) => file.endsWith('.svg'));
    expect(committed.sort()).toEqual(drawings.map(({ file }) => file).sort());
  });

  it('are others where a figure is another', async () => {
    const [row, ...rows] = RECORDS.allreduce.rows;
    const faster = { ...RECORDS.allreduce, rows: [{ ...row!, busbw: 2 * row!.busbw }, ...rows] };
    const [before] = await drawCharts(RECORDS);
    const [after] = await drawCharts({ ...RECORDS, allreduce: faster });
    expect(after?.file).toBe(before?.file);
    expect(after?.svg).not.toBe(before?.svg);
  });

  it('are shown in the README, for light and for dark pages', () => {
    const readme = readFileSync(`${ROOT}/README.md`, 'utf8');
    for (const file of readdirSync(`${ROOT}/docs`).filter((name) => name.endsWith('.svg')))
      expect(readme).toContain(`docs/${file}`);
  });
});

describe('a chart of panels', () => {
  const chart: PanelChart = {
    title: 'title',
    subtitle: ['one', 'two'],
    x: { title: 'x', unit: 'bytes', values: [1024, 2048] },
    y: { title: 'y', ends: [0.1, 10], values: [0.1, 1, 10] },
    strokes: [{ series: 'line', colours: ['#111111', '#eeeeee'], dash: [], width: 2 }],
    points: [
      { panel: 'left', series: 'line', x: 1024, y: 1 },
      { panel: 'left', series: 'line', x: 2048, y: 10 },
      { panel: 'right', series: 'line', x: 1024, y: 0.1 },
    ],
  };

  it('has its panels in the order of their points, and the colours of the page', async () => {
    const light = await panelsSvg(chart, 'light');
    const dark = await panelsSvg(chart, 'dark');
    expect(light.indexOf('>left<')).toBeGreaterThan(0);
    expect(light.indexOf('>left<')).toBeLessThan(light.indexOf('>right<'));
    expect(light).toContain('#111111');
    expect(light).not.toContain('#eeeeee');
    expect(dark).toContain('#eeeeee');
  });

  it('refuses points that it has no place for', async () => {
    const points = [{ panel: 'left', series: 'line', x: 1024, y: 11 }];
    await expect(panelsSvg({ ...chart, points }, 'light')).rejects.toThrow('line, left: 11 is not within 0.1 to 10');
  });
});
