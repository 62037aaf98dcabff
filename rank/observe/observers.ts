/** Files that a load writes for inspection: a trace and a plan log. */
import { NdsError } from '../../protocol/errors.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { PlanRecorder } from './plan-log.ts';
import { noTrace, openTrace, type Trace } from './trace.ts';

export interface Observers {
  readonly trace: Trace;
  /** Null when nothing is recorded. */
  readonly recorder: PlanRecorder | null;
}

export const noObservers: Observers = { trace: noTrace, recorder: null };

/** Files named by load options. */
export interface ObservedFiles {
  readonly trace?: string | undefined;
  readonly record?: string | undefined;
}

/**
 * Opens the files named by load options or the launcher, before anything else is done.
 * @throws NdsError `ERR_USAGE` for a file that cannot be written, one file for both uses, or one use named by both.
 */
export function openObservers({ trace, record }: ObservedFiles, env: RankEnv | null): Observers {
  if (trace !== undefined && trace === record)
    throw new NdsError('ERR_USAGE', `Expected two files for trace and record but received ${trace}`);
  const recorder = openRecorder(record ?? null, env?.recordFile ?? '');
  try {
    return { trace: openTrace(trace ?? null, env), recorder };
  } catch (error) {
    recorder?.close();
    throw error;
  }
}

export function closeObservers({ trace, recorder }: Observers): void {
  recorder?.close();
  trace.close();
}

/** The launcher's log is appended to by every load. */
function openRecorder(file: string | null, launched: string): PlanRecorder | null {
  if (file === null) return launched === '' ? null : new PlanRecorder(launched, true);
  if (launched === '') return new PlanRecorder(file, false);
  throw new NdsError('ERR_USAGE', `Expected no load option record beside ndsrun --record ${launched} but received ${file}`);
}
