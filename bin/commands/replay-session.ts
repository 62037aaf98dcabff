/** Replays the steps of one recorded load on all ranks. */
import { resolve } from 'node:path';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { LoadMessage } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { viewPlan } from '../../protocol/step-plan.ts';
import { modelSources } from '../../rank/gang/find-model.ts';
import { GangExecutor, noListener } from '../../rank/gang/gang-executor.ts';
import { type Model, modelHash, readModel } from '../../rank/model/index.ts';
import { native } from '../../rank/native.ts';
import { closeObservers, type Observers, openObservers } from '../../rank/observe/observers.ts';
import type { LoadRecord, StepRecord } from '../../rank/observe/plan-log.ts';
import { firstDifference, type PackedResult, SlotLengths } from '../../rank/observe/replay.ts';
import type { ReplayRequest } from './replay.ts';

/** Runs recorded plans in order and compares each result with the recorded one. */
export class ReplaySession {
  readonly #record: LoadRecord;
  readonly #gang: GangExecutor;
  readonly #observers: Observers;
  /** Plans in flight and their results, by step. */
  readonly #running = new Map<number, { readonly plan: StepRecord; readonly result: Promise<PackedResult> }>();

  readonly #lengths = new SlotLengths();

  private constructor(record: LoadRecord, gang: GangExecutor, observers: Observers) {
    this.#record = record;
    this.#gang = gang;
    this.#observers = observers;
  }

  static async open(record: LoadRecord, request: ReplayRequest, env: RankEnv | null): Promise<ReplaySession> {
    const path = resolve(request.model ?? record.message.model);
    const model = await readRecorded('model', path, record.modelHash);
    const draft = draftOf(record, request);
    if (draft !== null) await readRecorded('draft model', draft.model, record.draftHash ?? '');
    warnOfOthers(record);
    const observers = openObservers({}, env === null ? null : { ...env, recordFile: '' });
    const gang = await GangExecutor.open(env);
    const numThreads = request.numThreads ?? record.message.numThreads;
    const message = { ...record.message, model: path, draft, numThreads, trace: observers.trace.isOn };
    const models = [message, ...(draft === null ? [] : [draft])].map(({ model }) => ({ name: model, path: model }));
    await gang.load({ model, message, sources: await modelSources(env, models), observers, listener: noListener });
    return new ReplaySession(record, gang, observers);
  }

  run(plan: StepRecord): void {
    const result = this.#gang.submit(plan.step, plan.directory, plan.bytes).catch((error) => {
      throw toNdsError(error);
    });
    result.catch(() => {});
    this.#running.set(plan.step, { plan, result });
  }

  /** @throws NdsError `ERR_MISMATCH` naming the first difference to the recorded step; else the error of the step. */
  async compare(recorded: StepRecord): Promise<void> {
    const { step } = recorded;
    const running = this.#running.get(step);
    if (running === undefined) throw new NdsError('ERR_PLAN_LOG', `Expected the plan of step ${step} before its result`);
    this.#running.delete(step);
    const { plan, result } = running;
    const difference = firstDifference(viewPlan(step, plan.directory, plan.bytes), recorded, await result, this.#lengths);
    if (difference === null) return;
    const { isa } = native().cpuInfo();
    const where = isa === this.#record.isa ? '' : ` (recorded on ${this.#record.isa}, replayed on ${isa})`;
    throw new NdsError('ERR_MISMATCH', `Expected step ${step} as it was recorded but it differs: ${difference}${where}`);
  }

  /** Waits for the plans in flight; returns the number of steps without a recorded result. */
  async close(): Promise<number> {
    try {
      await Promise.all([...this.#running.values()].map(({ result }) => result));
      await this.#gang.unload();
    } finally {
      closeObservers(this.#observers);
    }
    return this.#running.size;
  }
}

/** The recorded draft model, at its present path; null without one. */
function draftOf({ message: { draft } }: LoadRecord, request: ReplayRequest): LoadMessage['draft'] {
  if (request.draft === null) return draft;
  if (draft !== null) return { ...draft, model: resolve(request.draft) };
  throw new NdsError('ERR_USAGE', `Expected no --draft for a load without a draft model but received ${request.draft}`);
}

/** @throws NdsError `ERR_MISMATCH` for another model than the recorded one; otherwise as `readModel`. */
async function readRecorded(what: string, path: string, recorded: string): Promise<Model> {
  const model = readModel(path);
  const hash = await modelHash(path);
  if (hash === recorded) return model;
  const [expected, received] = [recorded, hash].map((value) => value.slice(0, 16));
  throw new NdsError('ERR_MISMATCH', `Expected the recorded ${what} (hash ${expected}) but received ${path} (${received})`);
}

/**
 * Another version may still plan the same steps; another instruction set rounds differently and may yield other tokens.
 */
function warnOfOthers({ version, isa }: LoadRecord): void {
  const now = { version: native().version, isa: native().cpuInfo().isa };
  if (version !== now.version) warn(`recorded by version ${version}, replayed by ${now.version}`);
  if (isa !== now.isa)
    warn(`recorded with instruction set ${isa}, replayed with ${now.isa}, whose tokens may differ (NDS_ISA=${isa} forces the first)`);
}

/** Writes a line to standard error. */
export function warn(message: string): void {
  process.stderr.write(`warning: ${message}\n`);
}
