/**
 * The error report: the first failure and its cause, as JSON and in a few lines for the console. Pure but for
 * `writeReport`.
 */
import { writeFileSync } from 'node:fs';
import { NdsError } from '../protocol/errors.ts';
import { isForUser, type RankErrorRecord } from '../protocol/failure.ts';
import { publicJson } from '../protocol/public-json.ts';
import type { RankExit } from './agent-messages.ts';
import { failureText, placeOfFailure, type RankState } from './rank-state.ts';
import { endText, type GangEnd } from './root-cause.ts';
import { scriptLine } from './stack.ts';

/** A rank that failed. */
export interface RankFailure {
  readonly rank: number;
  readonly node: number;
  readonly host: string;
  readonly pid: number | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
}

/** A failure that a restart followed. */
export interface Restart {
  readonly rank: number;
  readonly cause: string;
  /** ISO 8601. */
  readonly time: string;
}

export interface ErrorReport {
  readonly version: 1;
  /** Of the node that failed, as `node`. */
  readonly host: string;
  readonly node: number;
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
        /** What it was doing. */
        readonly phase: RankState['phase'];
        /** The step that failed or hung, else the last one; null before the first. */
        readonly step: number | null;
        readonly error: Pick<RankErrorRecord, 'name' | 'code' | 'message' | 'stack'> | null;
        /** `yes`: the kernel counted an out-of-memory kill during the job. */
        readonly outOfMemory: 'yes' | 'perhaps' | 'no';
        readonly stderrTail: readonly string[];
      })
    | null;
  /** Ranks that ended in consequence. */
  readonly collateral: readonly RankFailure[];
  /** Earlier failures. */
  readonly restarts: readonly Restart[];
  /** Why no restart followed this one; null where none was asked for. */
  readonly notRestarted: string | null;
}

/** Inputs of a report, once the gang has ended. */
export interface ReportInput {
  readonly end: Exclude<GangEnd, { kind: 'finished' | 'signalled' }>;
  readonly exits: readonly RankExit[];
  readonly exitCode: number;
  readonly runId: string;
  readonly command: readonly string[];
  readonly placeOf: (rank: number) => { readonly node: number; readonly host: string };
  readonly errorOf: (rank: number) => RankErrorRecord | null;
  /** What a rank was doing when the failure was found; null where it did not say. */
  readonly stateOf: (rank: number) => RankState | null;
  readonly stderrTail: (rank: number) => readonly string[];
  /** On the node of the rank that failed first. */
  readonly hasOutOfMemoryKill: boolean;
  readonly restarts: readonly Restart[];
  readonly notRestarted: string | null;
}

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
/** Ranks named in one line. */
const maxNamedRanks = 3;

export function buildReport(input: ReportInput): ErrorReport {
  const { end, exits, exitCode, runId, command, restarts, notRestarted } = input;
  const root = end.kind === 'failed' || end.kind === 'hung' ? end.root.rank : null;
  const exit = exits.find(({ rank }) => rank === root);
  const others = exits.filter(({ rank, exitCode: code }) => rank !== root && code !== 0);
  return {
    version: 1,
    ...jobPlace(input, root),
    runId,
    time: new Date().toISOString(),
    command,
    exitCode,
    summary: summaryOf(input, exit),
    firstFailure: exit === undefined ? null : firstFailure(input, exit),
    collateral: others.map((other) => failureOf(input, other)),
    restarts,
    notRestarted,
  };
}

function jobPlace({ end, placeOf }: ReportInput, root: number | null): Pick<ErrorReport, 'host' | 'node'> {
  if (end.kind === 'node-lost' || end.kind === 'node-failed') return { host: end.address, node: end.node };
  return placeOf(root ?? (end.kind === 'stuck' ? end.ranks[0] : 0) ?? 0);
}

function firstFailure(input: ReportInput, exit: RankExit): ErrorReport['firstFailure'] {
  const { rank, spawnError } = exit;
  const recorded = input.end.kind === 'hung' ? input.end.root.error : input.errorOf(rank);
  const spawnRecord = spawnError && { name: 'Error', ...spawnError, stack: null };
  const error = recorded && { name: recorded.name, code: recorded.code, message: recorded.message, stack: recorded.stack };
  const stderrTail = input.stderrTail(rank);
  return {
    ...failureOf(input, exit),
    ...phaseOf(input, rank),
    error: error ?? spawnRecord,
    outOfMemory: outOfMemory(input, exit, stderrTail),
    stderrTail,
  };
}

function phaseOf({ end, stateOf }: ReportInput, rank: number): Pick<RankState, 'phase' | 'step'> {
  const state = (end.kind === 'hung' && end.hang.states.find((one) => one.rank === rank)) || stateOf(rank);
  const place = state === null ? { phase: 'starting' as const, step: null } : placeOfFailure(state);
  return end.kind === 'hung' ? { ...place, step: end.hang.step } : place;
}

function outOfMemory(input: ReportInput, { signal }: RankExit, stderrTail: readonly string[]): 'yes' | 'perhaps' | 'no' {
  // A hung rank is killed by us.
  if (input.end.kind === 'hung') return 'no';
  if (signal === 'SIGKILL') return input.hasOutOfMemoryKill ? 'yes' : 'perhaps';
  return stderrTail.some((line) => line.includes('JavaScript heap out of memory')) ? 'yes' : 'no';
}

function failureOf({ placeOf }: ReportInput, { rank, pid, exitCode, signal }: RankExit): RankFailure {
  return { rank, ...placeOf(rank), pid, exitCode, signal };
}

function summaryOf({ end, exits, stateOf }: ReportInput, exit: RankExit | undefined): string {
  switch (end.kind) {
    case 'stuck':
      return stuckText(end.ranks);
    case 'node-lost':
      return `node ${end.node} at ${end.address} was lost: ${end.why}`;
    case 'node-failed':
      return `node ${end.node} could not go on: ${end.message} [${end.code}]`;
    case 'hung':
      return `rank ${someOf(end.hang.culprits.map(String))} hung`;
    case 'failed': {
      const { rank } = end.root;
      const state = stateOf(rank);
      const place = state === null ? '' : failureText(state);
      const ending = (exit === undefined ? 'it recorded an error' : endText({ ...end.root, exit })) + (place === '' ? '' : ` ${place}`);
      return exits.length === 1 ? ending : `rank ${rank} failed first: ${ending}`;
    }
  }
}

function stuckText(ranks: readonly number[]): string {
  return `rank ${someOf(ranks.map(String))} still ran long after rank 0 had ended`;
}

/** The first of many, and how many more. */
function someOf(names: readonly string[]): string {
  const more = names.length - maxNamedRanks;
  return more > 0 ? `${names.slice(0, maxNamedRanks).join(', ')} and ${more} more` : names.join(', ');
}

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
  if (firstFailure?.outOfMemory === 'yes')
    return ['  memory ran out: the process needed more than it may have (ndsrun doctor shows the limits)'];
  if (firstFailure?.outOfMemory !== 'perhaps') return [];
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

/** @throws NdsError `ERR_SYSTEM` when the file cannot be written. */
export function writeReport(report: ErrorReport, file: string): void {
  try {
    writeFileSync(file, `${publicJson(report, 2)}\n`);
  } catch (error) {
    throw new NdsError('ERR_SYSTEM', `Expected a writable file for --report but received ${file}: ${(error as Error).message}`);
  }
}
