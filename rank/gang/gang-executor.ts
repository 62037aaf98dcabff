/** All ranks of a job as one executor: rank 0's own runner and the process group of the others. */
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { DownMessage, LoadMessage, MemoryReport, ShardReport, UpMessage } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { Directory } from '../../protocol/sections.ts';
import { packPlan, type StepPlan } from '../../protocol/step-plan.ts';
import { type StepResult, viewResult } from '../../protocol/step-result.ts';
import type { Executor } from '../engine/executor.ts';
import type { Model } from '../model/index.ts';
import type { Runner } from '../native.ts';
import { noObservers, type Observers } from '../observe/observers.ts';
import { Control } from './control.ts';
import { measureMemory } from './measure.ts';
import { watchPeers } from './peer-watch.ts';
import { alone, openPlace, type RankPlace } from './place.ts';
import { openGroup, type ProcessGroup } from './process-group.ts';
import { ownIdentity, RankRunner } from './rank-runner.ts';

/** Holds one model at a time, any number in turn; none after a rank is lost. */
export class GangExecutor implements Executor {
  readonly #env: RankEnv | null;
  #place: RankPlace = alone;
  #group: ProcessGroup | null = null;
  #runner: Runner | null = null;
  #failure: NdsError | null = null;
  #onFailure: (cause: NdsError) => void = () => {};
  #observers: Observers = noObservers;

  /** The gang of this process: ranks meet once, for all loads. */
  static #opened: Promise<GangExecutor> | undefined;

  private constructor(env: RankEnv | null) {
    this.#env = env;
  }

  /**
   * Meets the other ranks, if any, on the first call: they serve one model at a time. A single rank has an executor for
   * each model. @throws NdsError `ERR_MISMATCH` or `ERR_PEER_LOST`.
   */
  static async open(env: RankEnv | null): Promise<GangExecutor> {
    if (env === null || env.worldSize === 1) return new GangExecutor(env);
    GangExecutor.#opened ??= GangExecutor.#meet(env);
    return GangExecutor.#opened;
  }

  static async #meet(env: RankEnv): Promise<GangExecutor> {
    const info = await Control.open(env).gang();
    const gang = new GangExecutor(env);
    const group = openGroup(env, info, (error) => gang.fail(error));
    gang.#group = group;
    watchPeers({ runDir: info.runDir, worldSize: env.worldSize }, (cause) => gang.fail(cause));
    try {
      await group.meet(ownIdentity());
      gang.#place = await openPlace(env, info);
    } catch (error) {
      gang.fail(toNdsError(error));
    }
    if (gang.#failure !== null) throw gang.#failure;
    return gang;
  }

  /**
   * Asks every rank what memory it can load into now.
   * @returns `[worldSize]`
   * @throws NdsError the first error of any rank; with more than one rank, the gang is then broken.
   */
  async probe(device: 'cpu' | 'cuda'): Promise<MemoryReport[]> {
    if (this.#failure !== null) throw this.#failure;
    const own = measureMemory(device, this.#place);
    const others = await this.#whileWhole(this.#ask({ type: 'probe', device }, 'probed'));
    return [own, ...others.map(({ memory }) => memory)];
  }

  /**
   * Loads a model on every rank. `onFailure` is called if the gang breaks while it is loaded, `onLoaded` some times a
   * second while ranks load, with the bytes of weights that they have packed so far, all together.
   * @returns `[worldSize]` shards, in order of rank
   * @throws NdsError the first error of any rank; with more than one rank, the gang is then broken.
   */
  async load(
    model: Model,
    message: LoadMessage,
    onFailure: (cause: NdsError) => void,
    observers = noObservers,
    onLoaded: (loadedBytes: number) => void = () => {},
  ): Promise<ShardReport[]> {
    if (this.#failure !== null) throw this.#failure;
    const own = new RankRunner(model, message, this.#place);
    this.#runner = own.runner;
    this.#observers = observers;
    observers.trace.program(own.ops, own.draftOps);
    try {
      const ofOthers = new Map<number, number>();
      const others = this.#ask(message, 'loaded', (rank, loadedBytes) => ofOthers.set(rank, loadedBytes));
      const loading = own.load((loadedBytes) => onLoaded([...ofOthers.values()].reduce((sum, bytes) => sum + bytes, loadedBytes)));
      const [report, replies] = await this.#whileWhole(Promise.all([loading, others]));
      this.#onFailure = onFailure;
      return [report, ...replies.map((reply) => reply.shard)];
    } catch (error) {
      this.#runner = null;
      own.runner.close().catch(() => {});
      throw error;
    }
  }

  /** Sends a message to every other rank; resolves with their answers, in order of rank. */
  async #ask<Type extends UpMessage['type']>(
    message: DownMessage,
    type: Type,
    onProgress?: (rank: number, loadedBytes: number) => void,
  ): Promise<Extract<UpMessage, { type: Type }>[]> {
    this.#group?.broadcast(message);
    return this.#group?.collect(type, (this.#env as RankEnv).startupTimeoutMs, onProgress) ?? [];
  }

  /** Waits for what all ranks do. The gang breaks if it fails: ranks in a collective cannot be released otherwise. */
  async #whileWhole<T>(work: Promise<T>): Promise<T> {
    const broken = new Promise<never>((_, reject) => {
      this.#onFailure = reject;
    });
    try {
      return await Promise.race([work, broken]);
    } catch (error) {
      this.#onFailure = () => {};
      this.fail(toNdsError(error));
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
  fail(cause: NdsError): boolean {
    // A single rank has no peers to lose: another model may be loaded.
    if (this.#failure !== null || this.#group === null) return false;
    this.#failure = cause;
    this.#onFailure(cause);
    this.#group?.close();
    this.#runner?.close().catch(() => {});
    return false;
  }
}
