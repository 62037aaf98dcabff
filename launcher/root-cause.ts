/** The rank that failed first, and the exit code of the whole job. Pure. */
import { constants } from 'node:os';
import { exitCodes, type NdsErrorCode } from '../protocol/errors.ts';
import type { FailureRecord, RankErrorRecord } from '../protocol/failure.ts';
import type { RankExit } from './agent-messages.ts';
import type { Verdict } from './watchdog.ts';

/** A rank that failed, or that recorded an error and has not ended yet. */
export interface Suspect {
  readonly rank: number;
  readonly exit: RankExit | null;
  readonly error: RankErrorRecord | null;
}

/** How a job ended. */
export type GangEnd =
  | { readonly kind: 'finished' }
  | { readonly kind: 'failed'; readonly root: Suspect }
  /** A step without progress; the error of `root` says so. */
  | { readonly kind: 'hung'; readonly root: Suspect; readonly hang: Verdict }
  /** A node that node 0 cannot hear. */
  | { readonly kind: 'node-lost'; readonly node: number; readonly address: string; readonly why: string }
  /** A node that could not do what it was told. */
  | { readonly kind: 'node-failed'; readonly node: number; readonly address: string; readonly code: NdsErrorCode; readonly message: string }
  /** Ranks that still ran when the shutdown timeout after rank 0's end expired. */
  | { readonly kind: 'stuck'; readonly ranks: readonly number[] }
  | { readonly kind: 'signalled'; readonly signal: NodeJS.Signals; readonly wasForced: boolean };

/** Whether an exit fails the gang. */
export function hasFailed(exit: RankExit): boolean {
  return exit.exitCode !== 0;
}

/** The earliest failure. `ERR_PEER_LOST` is an echo of another failure: it is the cause only where nothing else is. */
export function rootCause(suspects: readonly Suspect[]): Suspect {
  const [first, ...rest] = suspects;
  if (first === undefined) throw new TypeError('Expected at least one suspect');
  return rest.reduce((best, suspect) => (precedes(suspect, best) ? suspect : best), first);
}

function precedes(a: Suspect, b: Suspect): boolean {
  const [aIsEcho, bIsEcho] = [isEcho(a), isEcho(b)];
  return aIsEcho === bIsEcho ? timeOf(a) < timeOf(b) : bIsEcho;
}

/** Whether a failure is the consequence of another rank's. */
export function isEcho({ error, exit }: Suspect): boolean {
  return error === null ? exit?.exitCode === exitCodes.ERR_PEER_LOST : error.code === 'ERR_PEER_LOST';
}

function timeOf({ error, exit }: Suspect): number {
  return error?.timestamp ?? exit?.time ?? Number.POSITIVE_INFINITY;
}

/** What the other ranks learn of a failure. */
export function failureRecord({ rank, exit, error }: Suspect): FailureRecord {
  return {
    rank,
    exitCode: exit?.exitCode ?? null,
    signal: exit?.signal ?? null,
    code: error?.code ?? null,
    message: error?.message ?? exit?.spawnError?.message ?? null,
  };
}

/** How a rank failed, in a few words. */
export function endText({ exit, error }: Suspect): string {
  if (exit === null) return error?.code ?? error?.name ?? 'it did not answer';
  if (exit.spawnError !== null) return 'it could not be started';
  return exit.signal === null ? `exit code ${exit.exitCode}` : `killed by ${exit.signal}`;
}

/** The launcher's exit code; `exits` holds those of all started ranks. */
export function exitCodeOf(end: GangEnd, exits: readonly RankExit[]): number {
  switch (end.kind) {
    case 'finished':
      return 0;
    case 'failed':
      return failureCode(end.root, exits);
    case 'stuck':
    case 'hung':
      return exitCodes.ERR_STEP_TIMEOUT;
    case 'node-lost':
      return exitCodes.ERR_PEER_LOST;
    case 'node-failed':
      return exitCodes[end.code];
    case 'signalled':
      return signalledCode(end.signal, end.wasForced, exits);
  }
}

function failureCode({ rank, error }: Suspect, exits: readonly RankExit[]): number {
  const exit = exits.find((candidate) => candidate.rank === rank);
  if (exit?.spawnError) return exitCodes[exit.spawnError.code === 'ENOENT' ? 'ERR_NOT_FOUND' : 'ERR_SYSTEM'];
  if (exit?.exitCode) return exit.exitCode;
  // Its error is on record, but our stop signal ended it before its own exit.
  if (error !== null) return error.exitCode;
  return exit?.signal ? signalCode(exit.signal) : exitCodes.ERR_INTERNAL;
}

function signalledCode(signal: NodeJS.Signals, wasForced: boolean, exits: readonly RankExit[]): number {
  if (signal !== 'SIGTERM') return signalCode(signal);
  if (wasForced) return signalCode('SIGKILL');
  const badly = exits.find((exit) => exit.exitCode !== 0 && exit.signal !== 'SIGTERM' && exit.exitCode !== signalCode('SIGTERM'));
  return badly === undefined ? 0 : (badly.exitCode ?? signalCode(badly.signal ?? 'SIGKILL'));
}

/** The exit code that a shell reports for a process ended by a signal. */
export function signalCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
