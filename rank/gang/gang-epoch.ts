/** One epoch of a gang, as rank 0 sees it: the group of the other ranks and this rank's own runner. Nothing outlives it. */
import { closeSync } from 'node:fs';
import type { GangInfo } from '../../protocol/control.ts';
import { deferred } from '../../protocol/deferred.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { DownMessage, LoadMessage, MemoryReport, ModelSource, ShardReport, UpMessage } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { Directory } from '../../protocol/sections.ts';
import type { Runner } from '../native.ts';
import type { Trace } from '../observe/trace.ts';
import { savesEnded } from '../shard-cache/shard-file.ts';
import { alone, inheritedPlace, openPlace, type RankPlace } from './place.ts';
import { openGroup, type ProcessGroup } from './process-group.ts';
import { ownIdentity, type RankRunner } from './rank-runner.ts';

type Packed = { directory: Directory; bytes: Uint8Array };

export class GangEpoch {
  /** Null for a single rank, as its group is. */
  readonly #env: RankEnv | null;
  readonly #info: GangInfo | null;
  readonly #group: ProcessGroup | null;
  readonly #over = deferred<never>();
  /** Ends the connections to other hosts. */
  readonly #abort = new AbortController();
  #cause: NdsError | null = null;
  #place: RankPlace = alone;
  /** Settles with the place, also of an epoch that is over. */
  #opened: Promise<RankPlace> | null = null;
  #runner: Runner | null = null;
  /** Settles when the runners of this epoch have left its memory. */
  #left: Promise<unknown> = Promise.resolve();

  private constructor(env: RankEnv | null, info: GangInfo | null, group: ProcessGroup | null) {
    this.#env = env;
    this.#info = info;
    this.#group = group;
    this.#over.promise.catch(() => {});
  }

  /** A single rank; `env` is null without a launcher. */
  static alone(env: RankEnv | null): GangEpoch {
    const epoch = new GangEpoch(null, null, null);
    if (env !== null) epoch.#place = inheritedPlace(env);
    return epoch;
  }

  /** Opens the sockets of an epoch; `onError` is called when a rank can no longer be reached. */
  static open(env: RankEnv, info: GangInfo, onError: (error: NdsError) => void): GangEpoch {
    return new GangEpoch(env, info, openGroup(env, info, onError));
  }

  /** Waits for every other rank. @throws NdsError as `ProcessGroup.meet`, or why the epoch is over. */
  async meet(): Promise<void> {
    if (this.#env === null || this.#info === null || this.#group === null) return;
    // Opened first: its name does not last.
    this.#opened = openPlace(this.#env, this.#info, this.#abort.signal);
    const [place] = await this.#whileWhole(Promise.all([this.#opened, this.#group.meet(ownIdentity())]));
    this.#place = place;
  }

  get place(): RankPlace {
    return this.#place;
  }

  /** Why it is over; null while it runs. */
  get cause(): NdsError | null {
    return this.#cause;
  }

  /** Settles when it is over. */
  async ended(): Promise<void> {
    await this.#over.promise.catch(() => {});
  }

  /** The outcome of some work. @throws NdsError why the epoch is over, as soon as it is. */
  #whileWhole<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#over.promise]);
  }

  /** Memory of the other ranks. */
  async probe(device: 'cpu' | 'cuda'): Promise<MemoryReport[]> {
    const others = await this.#whileWhole(this.#ask({ type: 'probe', device }, 'probed'));
    return others.map(({ memory }) => memory);
  }

  /**
   * Loads a model on every rank.
   * @param sources - the models, for ranks of other nodes; none on one node
   * @param onLoaded - called some times a second with the bytes of weights that all ranks have packed so far
   * @returns `[worldSize]` shards, in order of rank
   */
  async load(
    own: RankRunner,
    { message, sources }: { readonly message: LoadMessage; readonly sources: readonly ModelSource[] },
    onLoaded: (loadedBytes: number) => void,
  ): Promise<ShardReport[]> {
    this.#runner = own.runner;
    try {
      await this.#whileWhole(own.learnModels());
      if (sources.length > 0) await this.#whileWhole(this.#ask({ type: 'find', models: sources }, 'found', () => {}));
      const ofOthers = new Map<number, number>();
      const others = this.#ask(message, 'loaded', (rank, loadedBytes) => ofOthers.set(rank, loadedBytes));
      const loading = own.load((loadedBytes) => onLoaded([...ofOthers.values()].reduce((sum, bytes) => sum + bytes, loadedBytes)));
      const [report, replies] = await this.#whileWhole(Promise.all([loading, others]));
      return [report, ...replies.map((reply) => reply.shard)];
    } catch (error) {
      this.#closeRunner();
      throw error;
    }
  }

  /** Runs one plan on every rank; resolves with this rank's result. */
  async submit(step: number, directory: Directory, bytes: Uint8Array, trace: Trace): Promise<Packed> {
    const [group, runner] = [this.#group, this.#runner];
    if (runner === null) throw new NdsError('ERR_INTERNAL', 'Expected a loaded model before the first plan');
    if (group !== null) trace.time('send', () => group.broadcast({ type: 'plan', step, directory: Array.from(directory) }, bytes));
    return runner.submit(step, directory, bytes);
  }

  /** Frees the model on every rank. @throws NdsError as `ProcessGroup.collect`, or why the epoch is over. */
  async unload(): Promise<void> {
    await this.#closeRunner();
    await savesEnded();
    if (this.#group === null || this.#env === null || this.#cause !== null) return;
    this.#group.broadcast({ type: 'unload' });
    await this.#whileWhole(this.#group.collect('unloaded', this.#env.shutdownTimeoutMs));
  }

  /**
   * Ends waiting collectives; the other ranks see the sockets close and end too.
   * @param isLost - whether another epoch follows: what was sent to this one is dropped
   */
  abandon(cause: NdsError, isLost: boolean): void {
    if (this.#cause !== null) return;
    this.#cause = cause;
    this.#over.reject(cause);
    if (isLost) this.#group?.close(0);
    else this.#group?.close();
    this.#closeRunner();
    this.#abort.abort();
  }

  /** Gives the shared memory back once no thread of this rank uses it. A rank of the epoch may still write there. */
  async release(): Promise<void> {
    await this.#left;
    const opened = await this.#opened?.catch(() => null);
    this.#opened = null;
    if (opened && opened.shmFd >= 0) closeSync(opened.shmFd);
  }

  #closeRunner(): Promise<unknown> {
    const runner = this.#runner;
    this.#runner = null;
    if (runner !== null) this.#left = Promise.all([this.#left, runner.close().catch(() => {})]);
    return this.#left;
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
}
