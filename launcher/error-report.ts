/** The error report: the first failure and its cause, as JSON. Pure but for `writeReport`. */
import { writeFileSync } from 'node:fs';
import { NdsError } from '../protocol/errors.ts';
import type { RankErrorRecord } from '../protocol/failure.ts';
import { publicJson } from '../protocol/public-json.ts';
import type { RankExit, RankOutput } from './agent-messages.ts';
import { failureText, placeOfFailure, type RankState } from './rank-state.ts';
import { endText, type GangEnd } from './root-cause.ts';

/** A rank that failed. */
export interface RankFailure {
  readonly rank: number;
  readonly node: number;
  readonly host: string;
  readonly pid: number | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** Whether it ended for lack of memory; null = killed by an unknown sender, of which the kernel's counters say nothing. */
  readonly oomKilled: boolean | null;
  /** The counter of its node, or the line of its standard error, that says so; null without. */
  readonly oomEvidence: string | null;
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
  /** What its node said when the rank's output was complete. */
  readonly outputOf: (rank: number) => RankOutput;
  readonly restarts: readonly Restart[];
  readonly notRestarted: string | null;
}

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
    collateral: others.map((other) => failureOf(input, other)).sort((a, b) => a.rank - b.rank),
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
  return {
    ...failureOf(input, exit),
    ...phaseOf(input, rank),
    error: error ?? spawnRecord,
    stderrTail: input.outputOf(rank).stderrTail,
  };
}

function phaseOf({ end, stateOf }: ReportInput, rank: number): Pick<RankState, 'phase' | 'step'> {
  const state = (end.kind === 'hung' && end.hang.states.find((one) => one.rank === rank)) || stateOf(rank);
  const place = state === null ? { phase: 'starting' as const, step: null } : placeOfFailure(state);
  return end.kind === 'hung' ? { ...place, step: end.hang.step } : place;
}

/** A rank that was killed by the launcher itself, after a hang or a failure, did not end for lack of memory. */
function memoryOf({ end, outputOf }: ReportInput, { rank, signal }: RankExit): Pick<RankFailure, 'oomKilled' | 'oomEvidence'> {
  const { stderrTail, outOfMemoryKills, wasKilledByLauncher } = outputOf(rank);
  const heapLine = stderrTail.find((line) => line.includes('JavaScript heap out of memory')) ?? null;
  const evidence = signal === 'SIGKILL' ? outOfMemoryKills : heapLine;
  if (wasKilledByLauncher || (end.kind === 'hung' && end.root.rank === rank)) return { oomKilled: false, oomEvidence: null };
  return { oomKilled: evidence !== null ? true : signal === 'SIGKILL' ? null : false, oomEvidence: evidence };
}

function failureOf(input: ReportInput, exit: RankExit): RankFailure {
  const { rank, pid, exitCode, signal } = exit;
  return { rank, ...input.placeOf(rank), pid, exitCode, signal, ...memoryOf(input, exit) };
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
export function someOf(names: readonly string[]): string {
  const more = names.length - maxNamedRanks;
  return more > 0 ? `${names.slice(0, maxNamedRanks).join(', ')} and ${more} more` : names.join(', ');
}

/** @throws NdsError `ERR_SYSTEM` when the file cannot be written. */
export function writeReport(report: ErrorReport, file: string): void {
  try {
    writeFileSync(file, `${publicJson(report, 2)}\n`);
  } catch (error) {
    throw new NdsError('ERR_SYSTEM', `Expected a writable file for --report but received ${file}: ${(error as Error).message}`);
  }
}
