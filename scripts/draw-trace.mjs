/**
 * Draws one step of a trace as a timeline of all ranks: `node scripts/draw-trace.mjs [TRACE]` writes
 * docs/images/two-ranks.svg. TRACE is a trace of `ndsrun --trace`; by default, examples/tp.ts is recorded on two ranks.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './files.mjs';

/**
 * A complete event of Chrome's trace format; times in microseconds.
 * @typedef {{ name: string, ph: string, pid: number, ts: number, dur: number, args?: Record<string, number> }} TraceEvent
 * @typedef {{ name: string, start: number, end: number }} Span in microseconds from the start of the step
 * @typedef {{ rank: number, operators: Span[], layers: Span[] }} RankStep
 */

/** Operator groups by their name in a trace: colour, label, and whether ranks communicate in them. */
const groups = /** @type {const} */ ({
  embedding: ['#b59cd9', 'embedding', true],
  attention_in: ['#7cc4ec', 'norm, QKV, RoPE', false],
  attention: ['#4f9bd9', 'attention', false],
  o_proj: ['#a9d6c5', 'O projection', false],
  all_reduce: ['#e8743b', 'all-reduce', true],
  add: ['#a0a0a0', 'residual', false],
  mlp: ['#4fb58a', 'MLP', false],
  lm_head: ['#e3c64b', 'LM head', false],
  sample: ['#d987b4', 'sample', true],
  agree: ['#c0504d', 'agree', true],
});

const [width, margin, laneHeight, laneGap] = [1000, 60, 36, 26];
const plotWidth = width - margin - 20;

/**
 * The shortest step of a trace among those that every rank recorded.
 * @param {TraceEvent[]} events
 * @returns {RankStep[]} in order of rank
 */
export function shortestStep(events) {
  const spans = events.filter(({ ph }) => ph === 'X');
  const ranks = [...new Set(spans.map(({ pid }) => pid))].sort((a, b) => a - b);
  /** @type {Map<number, TraceEvent[]>} */
  const steps = new Map();
  for (const span of spans) {
    if (span.name !== 'step' || span.args?.['step'] === undefined) continue;
    steps.set(span.args['step'], [...(steps.get(span.args['step']) ?? []), span]);
  }
  const startOf = (/** @type {TraceEvent[]} */ all) => Math.min(...all.map(({ ts }) => ts));
  const endOf = (/** @type {TraceEvent[]} */ all) => Math.max(...all.map(({ ts, dur }) => ts + dur));
  const complete = [...steps].filter(([, all]) => all.length === ranks.length);
  const [shortest] = complete.sort(([, a], [, b]) => endOf(a) - startOf(a) - (endOf(b) - startOf(b)));
  if (shortest === undefined) throw new Error('Expected a trace with a step of every rank but received none');
  const [number, all] = shortest;
  const origin = startOf(all);
  const toSpan = (/** @type {TraceEvent} */ { name, ts, dur }) => ({ name, start: ts - origin, end: ts + dur - origin });
  return ranks.map((rank) => {
    const own = spans.filter(({ pid }) => pid === rank);
    const operators = own.filter(({ name, args }) => name !== 'step' && args?.['step'] === number).map(toSpan);
    const { ts, dur } = /** @type {TraceEvent} */ (all.find(({ pid }) => pid === rank));
    const isInside = (/** @type {TraceEvent} */ event) => event.ts >= ts && event.ts + event.dur <= ts + dur;
    return { rank, operators, layers: own.filter((event) => /^layer \d+$/.test(event.name) && isInside(event)).map(toSpan) };
  });
}

/**
 * A step as an SVG: the whole step, and below it its first layer, enlarged.
 * @param {RankStep[]} ranks
 * @returns {string}
 */
export function drawStep(ranks) {
  const end = Math.max(...ranks.flatMap(({ operators }) => operators.map((span) => span.end)));
  const layers = ranks[0]?.layers ?? [];
  const [layer] = layers;
  if (layer === undefined) throw new Error('Expected a step with layers but received one without');
  const height = ranks.length * (laneHeight + laneGap) - laneGap;
  const [top, zoomTop] = [70, 70 + height + 96];
  const zoomScale = plotWidth / (layer.end - layer.start);
  const scale = plotWidth / end;
  const x = (/** @type {number} */ time) => margin + time * scale;
  const brackets = layers.map(({ name, start, end: to }) => {
    const middle = (x(start) + x(to)) / 2;
    return `<path class="line" d="M${px(x(start) + 1)} ${top - 6}v-5H${px(x(to) - 1)}v5"/>${text(middle, top - 16, name, 'middle')}`;
  });
  const fan = [layer.start, layer.end].map((time, i) => {
    return `<path class="line" d="M${px(x(time))} ${top + height + 6}L${margin + i * plotWidth} ${zoomTop - 14}"/>`;
  });
  const zoomTitle = `${layer.name}, enlarged: ${(layer.end - layer.start).toFixed(1)} µs`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${zoomTop + height + 84}" role="img">`,
    `<title>One decode step on ${ranks.length} ranks</title>`,
    style,
    `<rect class="page" width="${width}" height="${zoomTop + height + 84}" rx="8"/>`,
    text(margin, 26, `one decode step on ${ranks.length} ranks: ${end.toFixed(0)} µs`, 'start', 'head'),
    ...brackets,
    ...lanes(ranks, top, { start: 0, end }, scale),
    ...fan,
    text(margin + plotWidth / 2, zoomTop - 20, zoomTitle, 'middle', 'head'),
    ...lanes(ranks, zoomTop, layer, zoomScale),
    ...legend(ranks, zoomTop + height + 30),
    '</svg>\n',
  ].join('\n');
}

const style = `<style>
.page{fill:#fff}text{fill:#1f2328;font:14px system-ui,-apple-system,"Segoe UI",sans-serif}.head{font-weight:600}
.line{fill:none;stroke:#8c959f}.in{fill:#111;font-size:12px}.meet{opacity:.45}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.line{stroke:#6e7681}.in{fill:#111}}
</style>`;

/**
 * A lane for each rank, and between neighbours a band for each exchange: from where each of them entered it to where
 * both left.
 * @param {RankStep[]} ranks
 * @param {number} top
 * @param {{ start: number, end: number }} window
 * @param {number} scale pixels per microsecond
 * @returns {string[]}
 */
function lanes(ranks, top, window, scale) {
  const x = (/** @type {number} */ time) => margin + (time - window.start) * scale;
  const shown = ranks.map(({ operators }) =>
    operators.filter(({ start, end }) => (start + end) / 2 > window.start && end <= window.end + 1),
  );
  return ranks.flatMap(({ rank }, i) => {
    const y = top + i * (laneHeight + laneGap);
    const boxes = (shown[i] ?? []).map((span) => {
      const [from, to] = [x(span.start), x(span.end)];
      const { colour, label } = groupOf(span.name);
      const box = `<rect x="${px(from)}" y="${y}" width="${px(to - from)}" height="${laneHeight}" fill="${colour}"/>`;
      return to - from < label.length * 7 ? box : box + text((from + to) / 2, y + laneHeight / 2 + 4, label, 'middle', 'in');
    });
    const bands = (shown[i] ?? []).flatMap((span, j) => {
      const { colour, meets } = groupOf(span.name);
      const other = shown[i + 1]?.[j];
      if (!meets || other === undefined) return [];
      const [up, down] = [y + laneHeight, y + laneHeight + laneGap];
      const path = `M${px(x(span.start))} ${up}H${px(x(span.end))}L${px(x(other.end))} ${down}H${px(x(other.start))}z`;
      return [`<path class="meet" fill="${colour}" d="${path}"/>`];
    });
    return [text(8, y + laneHeight / 2 + 5, `rank ${rank}`, 'start'), ...boxes, ...bands];
  });
}

/**
 * The legend of the groups that occur in a step, in two rows.
 * @param {RankStep[]} ranks
 * @param {number} top
 * @returns {string[]}
 */
function legend(ranks, top) {
  const names = Object.keys(groups).filter((name) => ranks.some(({ operators }) => operators.some((span) => span.name === name)));
  return names.map((name, i) => {
    const [x, y] = [margin + (i % 5) * (plotWidth / 5), top + Math.floor(i / 5) * 26];
    const { colour, label, meets } = groupOf(name);
    const note = meets && name !== 'all_reduce' ? `${label}, exchanges` : label;
    return `<rect x="${px(x)}" y="${y - 12}" width="16" height="16" rx="2" fill="${colour}"/>${text(x + 24, y + 1, note, 'start')}`;
  });
}

/** @param {string} name */
function groupOf(name) {
  if (!(name in groups)) throw new Error(`Expected operators among ${Object.keys(groups).join(', ')} but received ${name}`);
  const [colour, label, meets] = groups[/** @type {keyof typeof groups} */ (name)];
  return { colour, label, meets };
}

/** @param {number} value */
function px(value) {
  return value.toFixed(1);
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} content
 * @param {'start' | 'middle'} anchor
 * @param {string} [kind]
 */
function text(x, y, content, anchor, kind) {
  return `<text x="${px(x)}" y="${y}" text-anchor="${anchor}"${kind === undefined ? '' : ` class="${kind}"`}>${content}</text>`;
}

/** Records examples/tp.ts on two ranks. @returns {string} the trace */
function record() {
  const folder = mkdtempSync(join(tmpdir(), 'nds-trace-'));
  const file = join(folder, 'trace.json');
  try {
    const command = ['bin/ndsrun.js', '--nproc-per-node=2', '--trace', file, 'examples/tp.ts'];
    execFileSync(process.execPath, command, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
    return readFileSync(file, 'utf8');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [file] = process.argv.slice(2);
  const { traceEvents } = JSON.parse(file === undefined ? record() : readFileSync(file, 'utf8'));
  mkdirSync(join(root, 'docs/images'), { recursive: true });
  writeFileSync(join(root, 'docs/images/two-ranks.svg'), drawStep(shortestStep(traceEvents)));
}
