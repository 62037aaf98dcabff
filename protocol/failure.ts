/** Records in the run folder: a failing rank's error, and the launcher's notices to the other ranks. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodes, isNdsErrorCode } from './errors.ts';

/** `error-<rank>.json`: the error that ends a rank, written by the rank itself. */
export interface RankErrorRecord {
  readonly rank: number;
  /** The error's code, ours or Node's; null without one. */
  readonly code: string | null;
  readonly name: string;
  readonly message: string;
  readonly stack: string | null;
  /** Exit code of the process. */
  readonly exitCode: number;
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
}

/** `failure.json`: the first failure, written by the launcher before it stops the other ranks. */
export interface FailureRecord {
  readonly rank: number;
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly code: string | null;
  readonly message: string | null;
}

/** Max characters: a message keeps its start, a stack (which starts with the message) its end. */
const maxTextLength = 16384;

/** Describes anything thrown. An `NdsError` keeps its exit code; anything else exits with 1. */
export function describeError(rank: number, error: unknown): RankErrorRecord {
  const { name, message, stack, code } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  const isError = error instanceof Error;
  return {
    rank,
    code: typeof code === 'string' ? code : null,
    name: typeof name === 'string' ? name : typeof error,
    message: (typeof message === 'string' ? message : safeString(error)).slice(0, maxTextLength),
    stack: typeof stack === 'string' ? stack.slice(-maxTextLength) : null,
    exitCode: isError && name === 'NdsError' && isNdsErrorCode(code) ? exitCodes[code] : 1,
    timestamp: Date.now(),
  };
}

/** Whether an error is one of ours that the user can act on, so that its stack would only hide it. */
export function isForUser({ name, code }: Pick<RankErrorRecord, 'name' | 'code'>): boolean {
  return name === 'NdsError' && isNdsErrorCode(code) && !['ERR_INTERNAL', 'ERR_PROTOCOL', 'ERR_PLAN'].includes(code);
}

/** Records the error that ends this rank, unless one is recorded already. */
export function writeRankError(runDir: string, record: RankErrorRecord): void {
  if (readRankError(runDir, record.rank) === null) writeRecord(runDir, rankErrorFile(record.rank), record);
}

/** A rank's recorded error, or `null`. */
export function readRankError(runDir: string, rank: number): RankErrorRecord | null {
  return readRecord<RankErrorRecord>(runDir, rankErrorFile(rank));
}

/** Records the first failure of the gang. */
export function writeFailure(runDir: string, record: FailureRecord): void {
  writeRecord(runDir, 'failure.json', record);
}

/** The first failure of the gang, or `null`. */
export function readFailure(runDir: string): FailureRecord | null {
  return readRecord<FailureRecord>(runDir, 'failure.json');
}

/** Records that a rank has ended, successfully or not. */
export function writeRankEnd(runDir: string, rank: number): void {
  writeRecord(runDir, rankEndFile(rank), {});
}

/** Whether the launcher has seen a rank end. */
export function hasRankEnded(runDir: string, rank: number): boolean {
  return existsSync(join(runDir, rankEndFile(rank)));
}

function rankEndFile(rank: number): string {
  return `ended-${rank}.json`;
}

function rankErrorFile(rank: number): string {
  return `error-${rank}.json`;
}

// Renamed into place, so that readers never see a partial record.
function writeRecord(runDir: string, file: string, record: object): void {
  const path = join(runDir, file);
  writeFileSync(`${path}.${process.pid}`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.${process.pid}`, path);
}

function readRecord<T>(runDir: string, file: string): T | null {
  try {
    return JSON.parse(readFileSync(join(runDir, file), 'utf8')) as T;
  } catch {
    return null;
  }
}

function safeString(value: unknown): string {
  try {
    return String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}
