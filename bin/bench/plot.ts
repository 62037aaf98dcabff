/** Plots of a bench report as SVG text: lines over a logarithmic axis, or bars. Pure. */
import { bytesInWords, digits } from './format.ts';
import type { BenchRecord } from './record.ts';

const [width, height] = [640, 260];
const edge = { left: 64, right: 16, top: 16, bottom: 44 };
const numColors = 6;

/** Text within HTML or SVG. */
export function escapeHtml(text: string): string {
  const names: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (character) => names[character] ?? character);
}

/** One plot for each unit and x axis; records without an x, or alone in their unit, are bars. */
export function plotsOf(records: readonly BenchRecord[]): { readonly title: string; readonly svg: string }[] {
  const groups = new Map<string, BenchRecord[]>();
  for (const record of records) {
    const title = `${record.unit}${record.x === null ? '' : ` by ${record.x.name}`}`;
    groups.set(title, [...(groups.get(title) ?? []), record]);
  }
  return [...groups].map(([title, group]) => {
    const numPlaces = new Set(group.map(({ x }) => x?.value)).size;
    return { title, svg: numPlaces > 1 ? linePlot(group, title) : barPlot(group, title) };
  });
}

/** Horizontal bars from zero, with whiskers from min to max. */
export function barPlot(records: readonly BenchRecord[], title: string): string {
  const [row, left, right] = [26, 200, 90];
  const most = Math.max(...records.map(({ value }) => value.max)) || 1;
  const scale = (value: number) => left + (Math.max(0, value) / most) * (width - left - right);
  const bars = records.map(({ name, value }, i) => {
    const y = i * row + 8;
    return [
      `<text x="${left - 8}" y="${y + 12}" text-anchor="end">${escapeHtml(name)}</text>`,
      `<rect class="c0" x="${left}" y="${y}" width="${place(scale(value.median) - left)}" height="16"/>`,
      `<line class="whisker" x1="${place(scale(value.min))}" x2="${place(scale(value.max))}" y1="${y + 8}" y2="${y + 8}"/>`,
      `<text x="${place(scale(value.max) + 6)}" y="${y + 12}">${escapeHtml(digits(value.median))}</text>`,
    ].join('');
  });
  return svg(title, records.length * row + 8, bars);
}

/** One line for each series, median over x, with whiskers; x is logarithmic where all of it is above zero. */
export function linePlot(records: readonly BenchRecord[], title: string): string {
  const points = records.flatMap(({ x, value, series }) => (x === null ? [] : [{ x: x.value, value, series }]));
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const isLog = (xs[0] ?? 0) > 0;
  const warp = (x: number) => (isLog ? Math.log2(x) : x);
  const [first, last] = [warp(xs[0] ?? 0), warp(xs.at(-1) ?? 1)];
  const scaleX = (x: number) => edge.left + ((warp(x) - first) / (last - first || 1)) * (width - edge.left - edge.right);
  const ticks = ticksUpTo(Math.max(...points.map(({ value }) => value.max)));
  const scaleY = (y: number) => height - edge.bottom - (y / (ticks.at(-1) ?? 1)) * (height - edge.bottom - edge.top);
  const isBytes = records.some(({ x }) => x?.name === 'bytes');
  const names = [...new Set(points.map(({ series }) => series))];
  const lines = names.map((name, i) => {
    const own = points.filter(({ series }) => series === name).sort((a, b) => a.x - b.x);
    const path = own.map(({ x, value }) => `${place(scaleX(x))},${place(scaleY(value.median))}`).join(' ');
    const marks = own.map(({ x, value }) => {
      const at = place(scaleX(x));
      const whisker = `<line class="whisker" x1="${at}" x2="${at}" y1="${place(scaleY(value.min))}" y2="${place(scaleY(value.max))}"/>`;
      return `${whisker}<circle class="c${i % numColors}" cx="${at}" cy="${place(scaleY(value.median))}" r="3"><title>${escapeHtml(`${name}, ${x}: ${digits(value.median)}`)}</title></circle>`;
    });
    const key = `<text class="c${i % numColors}" x="${edge.left + 8}" y="${edge.top + 12 + i * 16}">${escapeHtml(name)}</text>`;
    return `<polyline class="c${i % numColors}" points="${path}"/>${marks.join('')}${key}`;
  });
  const gridY = ticks.map(
    (tick) =>
      `<line class="grid" x1="${edge.left}" x2="${width - edge.right}" y1="${place(scaleY(tick))}" y2="${place(scaleY(tick))}"/>` +
      `<text x="${edge.left - 6}" y="${place(scaleY(tick) + 4)}" text-anchor="end">${digits(tick)}</text>`,
  );
  const labels = xs.map(
    (x) => `<text x="${place(scaleX(x))}" y="${height - edge.bottom + 18}" text-anchor="middle">${isBytes ? bytesInWords(x) : x}</text>`,
  );
  return svg(title, height, [...gridY, ...labels, ...lines]);
}

/** Round numbers from 0 to at least `most`, four to six of them. */
export function ticksUpTo(most: number): number[] {
  if (!(most > 0)) return [0, 1];
  const raw = most / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) ?? 10) * power;
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, i) => i * step);
}

function svg(title: string, tall: number, parts: readonly string[]): string {
  return `<svg viewBox="0 0 ${width} ${tall}" role="img" aria-label="${escapeHtml(title)}">${parts.join('')}</svg>`;
}

function place(value: number): string {
  return String(Number(value.toFixed(1)));
}
