/** What an engine runs on: its executor, its limits and its observers. */
import type { NdsError } from '../../protocol/errors.ts';
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import type { KvLog } from '../kv/log.ts';
import type { Trace } from '../observe/trace.ts';
import type { SchedulerLimits } from '../scheduler/limits.ts';
import type { RowSizes } from '../scheduler/result-reader.ts';
import type { DraftLimits } from '../speculative/candidates.ts';
import type { ResolvedSpeculativeConfig } from '../speculative/config.ts';

/** Runs plans in submission order. */
export interface Executor {
  execute(plan: StepPlan): Promise<StepResult>;
  /**
   * Called after a failed step: no plan follows, since ranks that missed a step cannot run the next. True = the ranks may
   * be started anew: `lose` or `fail` of the engine follows.
   */
  fail(cause: NdsError): boolean;
}

export interface EngineOptions extends SchedulerLimits, RowSizes {
  /** Null = no speculation. */
  readonly speculativeConfig: ResolvedSpeculativeConfig | null;
  /** The draft model's limits; null without one. */
  readonly draftLimits: DraftLimits | null;
  /** Max plans in flight; with 2, the next plan is built and sent while one runs. */
  readonly maxNumPlansInFlight: number;
}

/** Observers of a running engine. */
export interface EngineObservers {
  readonly trace: Trace;
  /** Null = KV events are not logged. */
  readonly kvLog: KvLog | null;
}
