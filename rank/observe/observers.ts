/** What a load writes of itself for people to look at: a trace, a plan log, lines about KV blocks. */
import { NdsError } from '../../protocol/errors.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { type KvLog, lineKvLog } from '../kv/log.ts';
import type { LLMOptions } from '../options.ts';
import { PlanRecorder } from './plan-log.ts';
import { noTrace, openTrace, type Trace } from './trace.ts';

export interface Watch {
  readonly trace: Trace;
  /** Null when nothing is recorded. */
  readonly recorder: PlanRecorder | null;
  /** Null unless KV events are to be printed. */
  readonly kvLog: KvLog | null;
}

export const noWatch: Watch = { trace: noTrace, recorder: null, kvLog: null };

type WatchOptions = Pick<LLMOptions, 'trace' | 'record' | 'kvDebug'>;

/**
 * Opens the files that load options or the launcher name, before anything else is done.
 * @throws NdsError `ERR_USAGE` for one that cannot be written or that both name, and for a bad `NDS_KV_DEBUG`.
 */
export function openWatch({ trace, record, kvDebug }: WatchOptions, env: RankEnv | null): Watch {
  if (trace !== undefined && trace === record)
    throw new NdsError('ERR_USAGE', `Expected two files for trace and record but received ${trace}`);
  const kvLog = (kvDebug ?? readKvDebug()) ? lineKvLog((line) => process.stderr.write(`${line}\n`)) : null;
  const recorder = openRecorder(record ?? null, env?.recordFile ?? '');
  try {
    return { trace: openTrace(trace ?? null, env), recorder, kvLog };
  } catch (error) {
    recorder?.close();
    throw error;
  }
}

export function closeWatch({ trace, recorder }: Watch): void {
  recorder?.close();
  trace.close();
}

function readKvDebug(): boolean {
  const value = process.env['NDS_KV_DEBUG'] ?? '';
  if (!['', '0', '1'].includes(value)) throw new NdsError('ERR_USAGE', `Expected 0 or 1 for NDS_KV_DEBUG but received "${value}"`);
  return value === '1';
}

/** The launcher's log takes all models that are loaded in turn. */
function openRecorder(file: string | null, launched: string): PlanRecorder | null {
  if (file === null) return launched === '' ? null : new PlanRecorder(launched, true);
  if (launched === '') return new PlanRecorder(file, false);
  throw new NdsError('ERR_USAGE', `Expected no load option record beside ndsrun --record ${launched} but received ${file}`);
}
