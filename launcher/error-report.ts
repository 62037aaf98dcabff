/**
 * The error report: the first failure and its cause, as JSON and in a few lines for the console. Pure but for
 * `writeReport`.
 */
import { writeFileSync } from 'node:fs';
import { NdsError } from '../protocol/errors.ts';
import { type RankErrorRecord, readRankError } from '../protocol/failure.ts';
import { publicJson } from '../protocol/public-json.ts';
import type { RankExit } from './rank-process.ts';
import type { GangEnd } from './root-cause.ts';

/** A rank that failed. */
export interface RankFailure {
  readonly rank: number;
  readonly pid: number | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
}

export interface ErrorReport {
  readonly version: 1;
  readonly host: string;
  readonly runId: string;
  /** ISO 8601. */
  readonly time: string;
  readonly command: readonly string[];
  /** The launcher's own exit code. */
  readonly exitCode: number;
  readonly summary: string;
  /** The cause; `null` when no rank failed on its own. */
  readonly firstFailure:
    | (RankFailure & {
        readonly error: Pick<RankErrorRecord, 'name' | 'code' | 'message' | 'stack'> | null;
        /** `yes`: the kernel counted an out-of-memory kill during the job. */
        readonly outOfMemory: 'yes' | 'perhaps' | 'no';
        readonly stderrTail: readonly string[];
      })
    | null;
  /** Ranks that ended in consequence. */
  readonly collateral: readonly RankFailure[];
}

/** Inputs of a report, once the gang has ended. */
export interface ReportInput {
  readonly end: Exclude<GangEnd, { kind: 'finished' | 'signalled' }>;
  readonly exits: readonly RankExit[];
  readonly exitCode: number;
  readonly host: string;
  readonly runId: string;
  readonly runDir: string;
  readonly command: readonly string[];
  readonly hasOutOfMemoryKill: boolean;
  readonly stderrTail: (rank: number) => readonly string[];
}

const maxConsoleLines = 15;
const maxConsoleColumns = 400;

export function buildReport(input: ReportInput): ErrorReport {
  const { end, exits, exitCode, host, runId, command } = input;
  const root = end.kind === 'failed' ? end.root.rank : null;
  const exit = exits.find(({ rank }) => rank === root);
  const others = exits.filter(({ rank, exitCode: code }) => rank !== root && code !== 0);
  return {
    version: 1,
    host,
    runId,
    time: new Date().toISOString(),
    command,
    exitCode,
    summary: end.kind === 'stuck' ? `rank ${end.ranks.join(', ')} still ran long after rank 0 had ended` : summaryOf(end.root.rank, exit),
    firstFailure: exit === undefined ? null : firstFailure(input, exit),
    collateral: others.map(failureOf),
  };
}

function firstFailure(input: ReportInput, exit: RankExit): ErrorReport['firstFailure'] {
  const { rank, spawnError } = exit;
  const recorded = readRankError(input.runDir, rank);
  const spawnRecord = spawnError && {
    name: 'Error',
    code: (spawnError as NodeJS.ErrnoException).code ?? null,
    message: spawnError.message,
    stack: null,
  };
  const error = recorded && { name: recorded.name, code: recorded.code, message: recorded.message, stack: recorded.stack };
  const stderrTail = input.stderrTail(rank);
  return { ...failureOf(exit), error: error ?? spawnRecord, outOfMemory: outOfMemory(input, exit, stderrTail), stderrTail };
}

function outOfMemory(input: ReportInput, { signal }: RankExit, stderrTail: readonly string[]): 'yes' | 'perhaps' | 'no' {
  if (signal === 'SIGKILL') return input.hasOutOfMemoryKill ? 'yes' : 'perhaps';
  return stderrTail.some((line) => line.includes('JavaScript heap out of memory')) ? 'yes' : 'no';
}

function failureOf({ rank, pid, exitCode, signal }: RankExit): RankFailure {
  return { rank, pid, exitCode, signal };
}

function summaryOf(rank: number, exit: RankExit | undefined): string {
  return `rank ${rank} failed first: ${exit === undefined ? 'it recorded an error' : howItEnded(exit)}`;
}

function howItEnded({ exitCode, signal, spawnError }: Pick<RankExit, 'exitCode' | 'signal' | 'spawnError'>): string {
  if (spawnError !== null) return 'it could not be started';
  return signal === null ? `exit code ${exitCode}` : `killed by ${signal}`;
}

/** At most 15 lines. */
export function formatReport(report: ErrorReport, reportFile: string | null): string[] {
  const head = [`${report.summary}, on ${report.host}`];
  const tail = [];
  if (report.firstFailure?.outOfMemory === 'yes') head.push('  memory ran out: the process needed more than it may have');
  if (report.firstFailure?.outOfMemory === 'perhaps')
    head.push('  nobody here sent that signal; the usual sender is the kernel, when memory runs out');
  if (report.collateral.length > 0) tail.push(`  ended because of it: ${report.collateral.map(collateralText).join(', ')}`);
  tail.push(`  exit code ${report.exitCode}${reportFile === null ? '; more with --report FILE' : `; report in ${reportFile}`}`);
  const body = errorLines(report).slice(0, maxConsoleLines - head.length - tail.length);
  return [...head, ...body, ...tail].map((line) => (line.length > maxConsoleColumns ? `${line.slice(0, maxConsoleColumns)}…` : line));
}

function errorLines({ firstFailure }: ErrorReport): string[] {
  const error = firstFailure?.error;
  if (!error) return (firstFailure?.stderrTail ?? []).slice(-5).map((line) => `  | ${line}`);
  const title = `${error.name}${error.code === null ? '' : ` [${error.code}]`}: ${error.message}`;
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  return [
    ...title
      .split('\n')
      .slice(0, 5)
      .map((line) => `  ${line}`),
    ...frames.slice(0, 4).map((line) => `    ${line.trim()}`),
  ];
}

function collateralText({ rank, exitCode, signal }: RankFailure): string {
  return `rank ${rank} (${signal ?? exitCode})`;
}

/** @throws NdsError `ERR_SYSTEM` when the file cannot be written. */
export function writeReport(report: ErrorReport, file: string): void {
  try {
    writeFileSync(file, `${publicJson(report, 2)}\n`);
  } catch (error) {
    throw new NdsError('ERR_SYSTEM', `Expected a writable file for --report but received ${file}: ${(error as Error).message}`);
  }
}
