/** All ranks of a job as one executor: rank 0's own runner and the group of the others, over the epochs of the gang. */
import { isDeepStrictEqual } from 'node:util';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { LoadMessage, MemoryReport, ModelSource, ShardReport } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { Directory } from '../../protocol/sections.ts';
import { packPlan, type StepPlan } from '../../protocol/step-plan.ts';
import { type StepResult, viewResult } from '../../protocol/step-result.ts';
import type { Executor } from '../engine/executor.ts';
import type { Model } from '../model/index.ts';
import type { Observers } from '../observe/observers.ts';
import { Control } from './control.ts';
import { GangEpoch } from './gang-epoch.ts';
import { type EpochsUser, GangEpochs, holdProcess } from './gang-epochs.ts';
import { measureMemory } from './measure.ts';
import { RankRunner } from './rank-runner.ts';

/** What becomes of the ranks while a model is open. */
export interface GangListener {
  /** They are gone for good. */
  onFailed(cause: NdsError): void;
  /** Some were lost, and others follow; again when these are lost before `onResumed`. */
  onLost(): void;
  /** The others have loaded the model. */
  onResumed(): void;
}

/** For a model whose steps are submitted without an engine: they fail. */
export const noListener: GangListener = { onFailed() {}, onLost() {}, onResumed() {} };

/** A model to load, in each epoch. */
export interface GangLoad {
  readonly model: Model;
  readonly message: LoadMessage;
  /** Its models, for ranks of other nodes; none on one node. */
  readonly sources: readonly ModelSource[];
  readonly observers: Observers;
  readonly listener: GangListener;
}

/** A model that is open, and its shards `[worldSize]`. */
interface OpenLoad extends GangLoad {
  readonly shards: readonly ShardReport[];
}

/** Holds one model at a time, any number in turn; none after the gang has failed. */
export class GangExecutor implements Executor {
  readonly #env: RankEnv | null;
  /** Null for a single rank, which has one epoch. */
  readonly #epochs: GangEpochs | null;
  readonly #alone: GangEpoch;
  #open: OpenLoad | null = null;
  /** Whether the open model is being loaded again. */
  #isReloading = false;
  /** Keeps the process alive while an open model waits for ranks, as its calls may. */
  #hold: { release(): void } | null = null;

  /** The gang of this process, for all loads. */
  static #shared: GangExecutor | undefined;

  private constructor(env: RankEnv | null) {
    this.#env = env;
    this.#alone = GangEpoch.alone(env);
    this.#epochs = env === null || env.worldSize === 1 ? null : new GangEpochs(env, Control.open(env), this.#user());
  }

  /**
   * Meets the other ranks, if any, on the first call: they serve one model at a time. A single rank has an executor for
   * each model. @throws NdsError `ERR_MISMATCH` or `ERR_PEER_LOST`.
   */
  static async open(env: RankEnv | null): Promise<GangExecutor> {
    if (env === null || env.worldSize === 1) return new GangExecutor(env);
    GangExecutor.#shared ??= new GangExecutor(env);
    await GangExecutor.#shared.#whole();
    return GangExecutor.#shared;
  }

  /**
   * Asks every rank what memory it can load into now.
   * @returns `[worldSize]`
   * @throws NdsError the first error of any rank; with more than one rank, the gang is then broken.
   */
  probe(device: 'cpu' | 'cuda'): Promise<MemoryReport[]> {
    return this.#inEpoch((epoch) => {
      const own = measureMemory(device, epoch.place);
      return async () => [own, ...(await epoch.probe(device))];
    });
  }

  /**
   * Loads a model on every rank, from the start where ranks are lost meanwhile. `onLoaded` is called with the bytes of
   * weights that they have packed so far, all together: once native threads load this rank's, then some times a second.
   * @returns `[worldSize]` shards, in order of rank
   * @throws NdsError the first error of any rank; with more than one rank, the gang is then broken.
   */
  async load(load: GangLoad, onLoaded: (loadedBytes: number) => void = () => {}): Promise<readonly ShardReport[]> {
    const shards = await this.#inEpoch((epoch) => {
      const own = newRunner(load, epoch);
      return () => epoch.load(own, load, onLoaded);
    });
    this.#open = { ...load, shards };
    this.#tellReady();
    return shards;
  }

  /** Runs one plan on every rank; resolves with rank 0's result. */
  async execute(plan: StepPlan): Promise<StepResult> {
    const { directory, bytes } = packPlan(plan);
    const result = await this.submit(plan.step, directory, bytes);
    return viewResult(result.directory, result.bytes);
  }

  /** `execute` on packed bytes. */
  async submit(step: number, directory: Directory, bytes: Uint8Array): Promise<{ directory: Directory; bytes: Uint8Array }> {
    const cause = this.#epochs?.failure ?? this.#newest?.cause;
    if (cause) throw cause;
    if (this.#open === null) throw new NdsError('ERR_INTERNAL', 'Expected a loaded model before the first plan');
    const { trace, recorder } = this.#open.observers;
    recorder?.plan(step, directory, bytes);
    const result = await (this.#newest as GangEpoch).submit(step, directory, bytes, trace);
    recorder?.result(step, result.directory, result.bytes);
    if (trace.isOn) trace.step(step, viewResult(result.directory, result.bytes));
    return result;
  }

  /** Frees the model on every rank. Ranks that were lost hold none, and those that follow are not told to load it. */
  async unload(): Promise<void> {
    this.#open = null;
    this.#release();
    if (this.#epochs?.isOpening && !this.#isReloading) return;
    const epoch = this.#epochs?.failure ? this.#newest : await this.#whole();
    if (epoch === null) return;
    try {
      await epoch.unload();
    } catch (error) {
      await this.#judge(epoch, error);
    }
  }

  /** Takes the error of a step: one that lost ranks may have caused awaits the launcher's verdict. */
  fail(cause: NdsError): boolean {
    // A single rank has no peers to lose: another model may be loaded.
    if (this.#epochs === null) return false;
    this.#epochs.suspect(cause);
    return this.#epochs.failure === null;
  }

  get #newest(): GangEpoch | null {
    return this.#epochs === null ? this.#alone : this.#epochs.newest;
  }

  async #whole(): Promise<GangEpoch> {
    return this.#epochs?.whole() ?? this.#alone;
  }

  /** @throws NdsError the error, unless other ranks follow those of the epoch. */
  async #judge(epoch: GangEpoch, error: unknown): Promise<void> {
    if (this.#epochs === null) throw toNdsError(error);
    await this.#epochs.judge(epoch, error);
  }

  /** Does some work, in one epoch after the other until one is whole to its end. What `prepare` throws leaves the gang as it is. */
  async #inEpoch<T>(prepare: (epoch: GangEpoch) => () => Promise<T>): Promise<T> {
    for (;;) {
      const epoch = await this.#whole();
      const work = prepare(epoch);
      try {
        return await work();
      } catch (error) {
        await this.#judge(epoch, error);
      }
    }
  }

  #user(): EpochsUser {
    return {
      prepare: (epoch) => this.#reload(epoch),
      onLost: () => {
        if (this.#open === null) return;
        this.#hold ??= holdProcess();
        this.#open.listener.onLost();
      },
      onResumed: () => {
        this.#release();
        this.#open?.listener.onResumed();
      },
      onFailed: (cause) => {
        this.#release();
        this.#open?.listener.onFailed(cause);
      },
    };
  }

  async #reload(epoch: GangEpoch): Promise<void> {
    const open = this.#open;
    if (open === null) return;
    this.#isReloading = true;
    try {
      const shards = await epoch.load(newRunner(open, epoch), open, () => {});
      const rank = shards.findIndex((shard, i) => !isDeepStrictEqual(shard, open.shards[i]));
      if (rank >= 0)
        throw new NdsError('ERR_MISMATCH', `Expected rank ${rank} to load the shard of the rank before it but it loaded another`);
      this.#tellReady();
    } finally {
      this.#isReloading = false;
    }
  }

  #tellReady(): void {
    if (this.#env === null) return;
    const control = Control.open(this.#env);
    // A single rank has not waited for its epoch.
    if (this.#epochs === null) void control.gang().then(() => control.ready());
    else control.ready();
  }

  #release(): void {
    this.#hold?.release();
    this.#hold = null;
  }
}

/** @throws NdsError for a model that cannot be shared by so many ranks, before any other rank is told to load it. */
function newRunner({ model, message, observers }: GangLoad, epoch: GangEpoch): RankRunner {
  const own = new RankRunner(model, message, epoch.place);
  observers.trace.program(own.ops, own.draftOps);
  return own;
}
