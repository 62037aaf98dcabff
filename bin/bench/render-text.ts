/** A bench report as a console table and as Markdown. Pure. */
import { cellsOf, columnTitles, groupsOf } from './format.ts';
import type { BenchReport } from './record.ts';

/** Lines and an aligned table for each machine and model. */
export function renderTable({ records }: BenchReport): string {
  const blocks = groupsOf(records).map((group) => [...group.lines, '', ...alignedRows(tableOf(group.records))].join('\n'));
  return `${blocks.join('\n\n')}\n`;
}

/** The same as Markdown; the heading has the level of a section. */
export function renderMarkdown({ title, records }: BenchReport): string {
  const blocks = groupsOf(records).map(({ lines, records }) => {
    return [...lines.map((line) => `- ${escaped(line)}`), '', ...markdownRows(tableOf(records))].join('\n');
  });
  return `${[`## ${escaped(title)}`, ...blocks].join('\n\n')}\n`;
}

/** Title row and one row for each record, without columns that are empty in all. */
export function tableOf(records: BenchReport['records']): string[][] {
  const rows = records.map(cellsOf);
  const kept = columnTitles.map((_, i) => i === 0 || rows.some((row) => row[i] !== ''));
  return [[...columnTitles], ...rows].map((row) => row.filter((_, i) => kept[i]));
}

/** Rows of a Markdown table; the first is its head. */
export function markdownRows([head = [], ...rows]: readonly (readonly string[])[]): string[] {
  const rule = head.map((_, i) => (i === 0 ? '---' : '---:'));
  return [head.map(escaped), rule, ...rows.map((row) => row.map(escaped))].map((row) => `| ${row.join(' | ')} |`);
}

/** Rows as lines of aligned columns, the first to the left. */
export function alignedRows(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const cell = (text: string, i: number) => (i === 0 ? text.padEnd(widths[i] ?? 0) : `  ${text.padStart(widths[i] ?? 0)}`);
  return rows.map((row) => row.map(cell).join('').trimEnd());
}

function escaped(text: string): string {
  return text.replace(/[\\|<>*_`[\]]/g, (character) => `\\${character}`);
}
