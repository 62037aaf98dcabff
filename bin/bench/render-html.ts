/** A bench report as one page that needs nothing else: styles and plots are inside, and there is no script. Pure. */
import { publicJson } from '../../protocol/public-json.ts';
import { groupsOf } from './format.ts';
import { escapeHtml, plotsOf } from './plot.ts';
import type { BenchRecord, BenchReport } from './record.ts';
import { tableOf } from './render-text.ts';

const light = '--back:#fff;--text:#1b1f24;--soft:#6b7280;--grid:#e5e7eb;';
const dark = '--back:#14171c;--text:#e6e8eb;--soft:#9aa3af;--grid:#2d333b;';
const colors = ['#3b82f6', '#f97316', '#10b981', '#a855f7', '#ef4444', '#64748b'];
const style = [
  `:root{color-scheme:light dark;${light}}`,
  `@media(prefers-color-scheme:dark){:root{${dark}}}`,
  'body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em}',
  'table{border-collapse:collapse}th,td{padding:.2em .8em;border-bottom:1px solid var(--grid);text-align:right}',
  'th:first-child,td:first-child{text-align:left}p,summary{color:var(--soft)}pre{overflow:auto}',
  'figure{margin:1em 0;max-width:44em}svg{width:100%;font-size:12px}svg text{fill:var(--text)}',
  '.grid{stroke:var(--grid)}.whisker{stroke:var(--soft);stroke-width:1.5}polyline{fill:none;stroke-width:2}',
  ...colors.map((color, i) => `svg .c${i}{fill:${color};stroke:${color}}svg text.c${i}{stroke:none}svg polyline.c${i}{fill:none}`),
].join('\n');

/** The page: for each machine and model its lines, table and plots; last the records as JSON. */
export function renderHtml({ title, records }: BenchReport): string {
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width">',
    `<title>${escapeHtml(title)}</title>`,
    `<style>\n${style}\n</style>`,
    '</head>',
    '<body>',
    `<h1>${escapeHtml(title)}</h1>`,
    ...groupsOf(records).map(({ lines, records }) => sectionOf(lines, records)),
    `<details><summary>Records as JSON</summary><pre>${escapeHtml(publicJson(records, 2))}</pre></details>`,
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

function sectionOf(lines: readonly string[], records: readonly BenchRecord[]): string {
  const [head = [], ...rows] = tableOf(records);
  const row = (cells: readonly string[], tag: string) => `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`;
  const table = `<table><thead>${row(head, 'th')}</thead><tbody>${rows.map((cells) => row(cells, 'td')).join('')}</tbody></table>`;
  const plots = plotsOf(records).map((plot) => `<figure><figcaption>${escapeHtml(plot.title)}</figcaption>${plot.svg}</figure>`);
  return ['<section>', `<p>${lines.map(escapeHtml).join('<br>')}</p>`, table, ...plots, '</section>'].join('\n');
}
