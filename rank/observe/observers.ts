/** What a load writes of itself for people to look at: a trace and a plan log. */
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

/** Files that load options name. */
export interface ObservedFiles {
  readonly trace?: string | undefined;
  readonly record?: string | undefined;
}

/**
 * Opens the files that load options or the launcher name, before anything else is done.
 * @throws NdsError `ERR_USAGE` for one that cannot be written or that both name.
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

/** The launcher's log takes all models that are loaded in turn. */
function openRecorder(file: string | null, launched: string): PlanRecorder | null {
  if (file === null) return launched === '' ? null : new PlanRecorder(launched, true);
  if (launched === '') return new PlanRecorder(file, false);
  throw new NdsError('ERR_USAGE', `Expected no load option record beside ndsrun --record ${launched} but received ${file}`);
}
