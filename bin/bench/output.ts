/** The outputs of a bench command: a table, JSON or Markdown on standard output, and a page in a file. */
import { accessSync, constants, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { OptionSpec } from '../../launcher/command-line.ts';
import { flag, text } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { type BenchReport, benchSchema } from './record.ts';
import { renderHtml } from './render-html.ts';
import { renderMarkdown, renderTable } from './render-text.ts';

export const outputSpecs = {
  json: { value: null, parse: flag, help: 'print one JSON object' },
  markdown: { value: null, parse: flag, help: 'print a Markdown table' },
  html: { value: 'FILE', parse: text, help: 'also write a page with plots there' },
  quiet: { value: null, parse: flag, help: 'no progress on standard error' },
} satisfies Record<string, OptionSpec<unknown>>;

/** What is printed, and where the page goes. */
export interface Outputs {
  readonly format: 'table' | 'json' | 'markdown';
  /** Absolute; null = no page. */
  readonly html: string | null;
  readonly quiet: boolean;
}

/** The outputs that options ask for. @throws NdsError `ERR_USAGE` for two formats, `ERR_NOT_FOUND` for a page in no folder. */
export function outputsOf(options: {
  readonly json?: boolean | undefined;
  readonly markdown?: boolean | undefined;
  readonly html?: string | undefined;
  readonly quiet?: boolean | undefined;
}): Outputs {
  if (options.json && options.markdown) throw new NdsError('ERR_USAGE', 'Expected --json or --markdown but received both');
  const html = options.html === undefined ? null : resolve(options.html);
  if (html !== null) checkWritable(html);
  return { format: options.json ? 'json' : options.markdown ? 'markdown' : 'table', html, quiet: options.quiet ?? false };
}

/** Writes a report. `table`: console text instead of the table of records. */
export function writeReport(report: BenchReport, outputs: Outputs, table: (report: BenchReport) => string = renderTable): void {
  if (outputs.html !== null) writeFileSync(outputs.html, renderHtml(report));
  process.stdout.write(textOf(report, outputs, table));
}

function textOf(report: BenchReport, { format }: Outputs, table: (report: BenchReport) => string): string {
  if (format === 'markdown') return renderMarkdown(report);
  if (format === 'json') return `${publicJson({ schema: benchSchema, ...report.extra, records: report.records })}\n`;
  return table(report);
}

/** A long measurement does not end at a page that cannot be written. */
function checkWritable(file: string): void {
  try {
    accessSync(dirname(file), constants.W_OK);
  } catch (error) {
    throw new NdsError('ERR_NOT_FOUND', `Expected a folder to write in for --html but received ${file}`, { cause: error });
  }
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory())
    throw new NdsError('ERR_USAGE', `Expected a file for --html but ${file} is a folder`);
}
