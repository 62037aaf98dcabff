/** The error report on the console: a few lines. Pure. */
import { isForUser, type RankErrorRecord } from '../protocol/failure.ts';
import { type ErrorReport, type RankFailure, someOf } from './error-report.ts';
import { scriptLine } from './stack.ts';

/** The console: what it has shown already, and where the rest is. */
export interface ReportPlace {
  readonly numNodes: number;
  /** Of `--report`; null without. */
  readonly file: string | null;
  /** Number of ranks of the job. */
  readonly numRanks: number;
  /** Whether the console shows the standard error of the rank that failed. */
  readonly isStderrShown: boolean;
}

const maxConsoleLines = 15;
const maxConsoleColumns = 400;
const maxMessageLines = 5;
/**
 * At most 15 lines. Of a job of one rank, only what its own output has not said: an error for the user as message and
 * line of the script, a signal, or the exit code.
 */
export function formatReport(report: ErrorReport, place: ReportPlace): string[] {
  const lines = place.numRanks === 1 ? singleLines(report, place) : gangLines(report, place);
  return lines.map(shortened);
}

function gangLines(report: ErrorReport, { file, numNodes }: ReportPlace): string[] {
  const head = [headLine(report, numNodes), ...memoryLines(report)];
  const tail = restartLines(report);
  if (report.collateral.length > 0) tail.push(`  ended because of it: ${someOf(report.collateral.map(collateralText))}`);
  tail.push(`  exit code ${report.exitCode}${file === null ? '; more with --report FILE' : `; report in ${file}`}`);
  return [...head, ...errorLines(report).slice(0, maxConsoleLines - head.length - tail.length), ...tail];
}

function headLine({ summary, host, node }: ErrorReport, numNodes: number): string {
  // The summary of a lost node is about the node, with its address.
  if (summary.startsWith(`node ${node} `)) return summary;
  return `${summary}, on ${host}${numNodes > 1 ? ` (node ${node})` : ''}`;
}

function restartLines({ restarts, notRestarted }: ErrorReport): string[] {
  const list = restarts.map(({ rank, cause }) => `rank ${rank} (${cause})`);
  return [
    ...(list.length === 0 ? [] : [`  restarted before, after ${someOf(list)}`]),
    ...(notRestarted === null ? [] : [`  not restarted: ${notRestarted}`]),
  ];
}

function singleLines(report: ErrorReport, { file, isStderrShown }: ReportPlace): string[] {
  const { firstFailure, summary } = report;
  const error = firstFailure?.error;
  const tail = [...restartLines(report), ...(file === null ? [] : [`report in ${file}`])];
  if (error && isForUser(error)) {
    const message = error.message.split('\n').slice(0, maxMessageLines).join('\n');
    return [...`${message} [${error.code}]`.split('\n'), ...placeOf(error), ...tail];
  }
  // Node has printed the error and its stack.
  if (isStderrShown && error?.stack) return tail;
  const body = error || !isStderrShown ? errorLines(report).slice(0, maxConsoleLines - 4) : [];
  return [summary, ...memoryLines(report), ...body, ...tail];
}

function memoryLines({ firstFailure }: ErrorReport): string[] {
  if (firstFailure?.oomKilled === true)
    return ['  memory ran out: the process needed more than it may have (ndsrun doctor shows the limits)'];
  if (firstFailure === null || firstFailure.oomKilled === false) return [];
  return ['  nobody here sent that signal; the usual sender is the kernel, when memory runs out'];
}

function errorLines({ firstFailure }: ErrorReport): string[] {
  const error = firstFailure?.error;
  if (!error) return (firstFailure?.stderrTail ?? []).slice(-5).map((line) => `  | ${line}`);
  const title = error.code === null ? `${error.name}: ${error.message}` : `${error.message} [${error.code}]`;
  return [...title.split('\n').slice(0, maxMessageLines), ...placeOf(error)].map((text) => `  ${text}`);
}

/** A line cut in its middle to what a console bears: what was received, and the code, stand at its end. */
function shortened(line: string): string {
  const half = maxConsoleColumns / 2;
  return line.length > maxConsoleColumns ? `${line.slice(0, half)}…${line.slice(-half)}` : line;
}

/** The line of the script, if the error passed through one. */
function placeOf({ stack }: Pick<RankErrorRecord, 'stack'>): string[] {
  const line = scriptLine(stack);
  return line === null ? [] : [`  at ${line}`];
}

function collateralText({ rank, exitCode, signal }: RankFailure): string {
  return `rank ${rank} (${signal ?? exitCode})`;
}
