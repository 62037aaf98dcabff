/** All ranks of a job as one executor: rank 0's own runner and the process group of the others. */
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { LoadMessage, ShardReport } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { Directory } from '../../protocol/sections.ts';
import { packPlan, type StepPlan } from '../../protocol/step-plan.ts';
import { type StepResult, viewResult } from '../../protocol/step-result.ts';
import type { Executor } from '../engine/engine.ts';
import type { Model } from '../model/index.ts';
import type { Runner } from '../native.ts';
import { noObservers, type Observers } from '../observe/observers.ts';
import { watchPeers } from './peer-watch.ts';
import { ProcessGroup } from './process-group.ts';
import { alone, ownIdentity, type RankPlace, RankRunner } from './rank-runner.ts';

/** Holds one model at a time, any number in turn; none after a rank is lost. */
export class GangExecutor implements Executor {
  readonly #env: RankEnv | null;
  readonly #place: RankPlace;
  #group: ProcessGroup | null = null;
  #runner: Runner | null = null;
  #failure: NdsError | null = null;
  #onFailure: (cause: NdsError) => void = () => {};
  #observers: Observers = noObservers;

  /** The gang of this process: ranks meet once, for all loads. */
  static #opened: Promise<GangExecutor> | undefined;

  private constructor(env: RankEnv | null) {
    this.#env = env;
    this.#place = env === null || env.worldSize === 1 ? alone : env;
  }

  /** Meets the other ranks, if any, on the first call. @throws NdsError `ERR_MISMATCH` or `ERR_PEER_LOST`. */
  static open(env: RankEnv | null): Promise<GangExecutor> {
    GangExecutor.#opened ??= GangExecutor.#meet(env);
    return GangExecutor.#opened;
  }

  static async #meet(env: RankEnv | null): Promise<GangExecutor> {
    const gang = new GangExecutor(env);
    if (env === null || env.worldSize === 1) return gang;
    watchPeers(env, (cause) => gang.fail(cause));
    const group = new ProcessGroup(env, (error) => gang.fail(error));
    gang.#group = group;
    try {
      await group.meet(ownIdentity());
    } catch (error) {
      gang.fail(toNdsError(error));
    }
    if (gang.#failure !== null) throw gang.#failure;
    return gang;
  }

  /**
   * Loads a model on every rank. `onFailure` is called if the gang breaks while it is loaded.
   * @returns `[worldSize]` shards, in order of rank
   * @throws NdsError the first error of any rank; with more than one rank, the gang is then broken.
   */
  async load(model: Model, message: LoadMessage, onFailure: (cause: NdsError) => void, observers = noObservers): Promise<ShardReport[]> {
    if (this.#failure !== null) throw this.#failure;
    const own = new RankRunner(model, message, this.#place);
    this.#runner = own.runner;
    this.#observers = observers;
    observers.trace.program(own.ops, own.draftOps);
    const broken = new Promise<never>((_, reject) => {
      this.#onFailure = reject;
    });
    try {
      this.#group?.broadcast(message);
      const others = this.#group?.collect('loaded', (this.#env as RankEnv).startupTimeoutMs) ?? [];
      const [report, replies] = await Promise.race([Promise.all([own.load(), others]), broken]);
      this.#onFailure = onFailure;
      return [report, ...replies.map((reply) => reply.shard)];
    } catch (error) {
      this.#onFailure = () => {};
      this.#runner = null;
      // Ranks waiting for the failed one in a collective cannot be released otherwise.
      this.fail(toNdsError(error));
      own.runner.close().catch(() => {});
      throw error;
    }
  }

  /** Runs one plan on every rank; resolves with rank 0's result. */
  async execute(plan: StepPlan): Promise<StepResult> {
    const { directory, bytes } = packPlan(plan);
    const result = await this.submit(plan.step, directory, bytes);
    return viewResult(result.directory, result.bytes);
  }

  /** `execute` on packed bytes. */
  async submit(step: number, directory: Directory, bytes: Uint8Array): Promise<{ directory: Directory; bytes: Uint8Array }> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#runner === null) throw new NdsError('ERR_INTERNAL', 'Expected a loaded model before the first plan');
    const group = this.#group;
    const { trace, recorder } = this.#observers;
    recorder?.plan(step, directory, bytes);
    if (group !== null) trace.time('send', () => group.broadcast({ type: 'plan', step, directory: Array.from(directory) }, bytes));
    const result = await this.#runner.submit(step, directory, bytes);
    recorder?.result(step, result.directory, result.bytes);
    if (trace.isOn) trace.step(step, viewResult(result.directory, result.bytes));
    return result;
  }

  /** Frees the model on every rank. */
  async unload(): Promise<void> {
    const runner = this.#runner;
    this.#runner = null;
    this.#onFailure = () => {};
    await runner?.close();
    if (this.#group === null || this.#failure !== null) return;
    this.#group.broadcast({ type: 'unload' });
    await this.#group.collect('unloaded', (this.#env as RankEnv).shutdownTimeoutMs);
  }

  /** Breaks the gang: ends waiting collectives; the other ranks see the sockets close and end too. */
  fail(cause: NdsError): void {
    // A single rank has no peers to lose: another model may be loaded.
    if (this.#failure !== null || this.#place.worldSize === 1) return;
    this.#failure = cause;
    this.#onFailure(cause);
    this.#group?.close();
    this.#runner?.close().catch(() => {});
  }
}
