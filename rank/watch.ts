/** What a load writes of itself for people to look at: a trace, a plan log. */
import { NdsError } from '../protocol/errors.ts';
import type { RankEnv } from '../protocol/rank-env.ts';
import type { LLMOptions } from './options.ts';
import { PlanRecorder } from './plan-log.ts';
import { noTrace, openTrace, type Trace } from './trace.ts';

export interface Watch {
  readonly trace: Trace;
  /** Null when nothing is recorded. */
  readonly recorder: PlanRecorder | null;
}

export const noWatch: Watch = { trace: noTrace, recorder: null };

/**
 * Opens the files that load options or the launcher name, before anything else is done.
 * @throws NdsError `ERR_USAGE` for one that cannot be written or that both name.
 */
export function openWatch({ trace, record }: Pick<LLMOptions, 'trace' | 'record'>, env: RankEnv | null): Watch {
  const recorder = openRecorder(record ?? null, env?.recordFile ?? '');
  try {
    return { trace: openTrace(trace ?? null, env), recorder };
  } catch (error) {
    recorder?.close();
    throw error;
  }
}

export function closeWatch({ trace, recorder }: Watch): void {
  recorder?.close();
  trace.close();
}

/** The launcher's log takes all models that are loaded in turn. */
function openRecorder(file: string | null, launched: string): PlanRecorder | null {
  if (file === null) return launched === '' ? null : new PlanRecorder(launched, true);
  if (launched === '') return new PlanRecorder(file, false);
  throw new NdsError('ERR_USAGE', `Expected no load option record beside ndsrun --record ${launched} but received ${file}`);
}
