/** One rank's share of a loaded model; the same class on every rank. */
import { type DraftRule, type LoadMessage, progressMs, type ShardReport } from '../../protocol/messages.ts';
import { readProcessors } from '../../protocol/processors.ts';
import { type Model, readModel, shardReport } from '../model/index.ts';
import { addonFiles, native, type Runner } from '../native.ts';
import type { OpSpec } from '../program-spec.ts';
import { dropShardFile, findShardFile, isCached, keepShardFile, learnModels, notice, type Shard } from '../shard-cache/shard-file.ts';
import type { RankPlace } from './place.ts';
import type { RankIdentity } from './process-group.ts';
import { type RankPrograms, rankPrograms, replicatedOf, shardsOf } from './rank-programs.ts';
import { ownNumThreads, placeThreads } from './threads.ts';

/** What rank 0 compares between ranks before a load. */
export function ownIdentity(): RankIdentity {
  const { version, cpuInfo } = native();
  return { version, isa: cpuInfo().isa, cudaBuild: addonFiles().cudaBuild?.stamp || 'none' };
}

/** A program and the native runner that loads and runs it. */
export class RankRunner {
  readonly runner: Runner;
  readonly #model: Model;
  readonly #programs: RankPrograms;
  readonly #draftRule: DraftRule;
  readonly #place: RankPlace;
  /** Bytes of weights that the rank before this one on its host holds too; computed when called. */
  readonly #replicatedBytes: () => number;
  /** The model's and the draft's; null for one that is not cached. */
  readonly #shards: readonly (Shard | null)[];

  /** Builds this rank's program. @throws NdsError for a bad model, before any other rank is told to load it. */
  constructor(model: Model, message: LoadMessage, place: RankPlace) {
    const { rank, worldSize, localRank, localWorldSize, shmFd, mesh, stateFd, startupTimeoutMs, stepTimeoutMs } = place;
    const { numThreads, trace, draft, draftRule, device, deterministic } = message;
    this.#model = model;
    this.#draftRule = draftRule;
    this.#place = place;
    const draftModel = draft && readModel(draft.model);
    const programsOf = (index: number) => rankPrograms(model, draftModel, message, { rank: index, worldSize });
    this.#programs = programsOf(rank);
    this.#replicatedBytes = () => (localRank === 0 ? 0 : replicatedOf(this.#programs, programsOf(rank - 1)));
    const shards = device === 'cuda' ? [] : shardsOf(this.#programs, message, place);
    this.#shards = shards.map((shard) => (isCached(shard) ? shard : null));
    const ownThreads = ownNumThreads(numThreads);
    const runnerOptions = {
      rank,
      worldSize,
      localRank,
      localWorldSize,
      shmFd,
      mesh,
      numThreads: ownThreads,
      threadPlacement: placeThreads(readProcessors(), { localRank, localWorldSize, numThreads: ownThreads }),
      cuda: device === 'cuda' ? { deviceIndex: localRank, deterministic } : undefined,
      stateFd,
      startupTimeoutMs,
      // The launcher watches the step and names the rank that holds it up: these deadlines are for when it cannot.
      stepTimeoutMs: stateFd < 0 ? stepTimeoutMs : 2 * stepTimeoutMs,
      trace,
    };
    this.runner = native().createRunner(runnerOptions);
  }

  /** Operators of this rank's program. */
  get ops(): readonly OpSpec[] {
    return this.#programs.program.ops;
  }

  /** Operators of the draft's program; native numbers them after `ops`. */
  get draftOps(): readonly OpSpec[] {
    return this.#programs.draft?.program.ops ?? [];
  }

  /**
   * Loads the weights. Collective: all ranks must load the same model.
   * @param onLoaded - called with the bytes of weights packed so far, once native threads load and then every `progressMs`
   */
  async load(onLoaded: (loadedBytes: number) => void): Promise<ShardReport> {
    const files = await Promise.all(this.#shards.map((shard) => shard && findShardFile(shard)));
    const [model, draft] = files;
    const { program: own, draft: ownDraft } = this.#programs;
    const program = { ...own, packedFile: model?.spec };
    const draftSpec = ownDraft && { ...ownDraft, program: { ...ownDraft.program, packedFile: draft?.spec } };
    const timer = setInterval(() => onLoaded(this.runner.loadedBytes()), progressMs);
    try {
      const loading = this.runner.load(program, draftSpec, this.#draftRule);
      // While native threads pack.
      onLoaded(this.runner.loadedBytes());
      const replicatedBytes = this.#replicatedBytes();
      const report = await loading;
      const { weightBytes, kvBytes, scratchBytes } = report;
      if (report.notice !== '') notice(report.notice);
      for (const file of files) if (file !== null) keepShardFile(file);
      return { ...shardReport(this.#model, this.#place), weightBytes, replicatedBytes, kvBytes, scratchBytes };
    } catch (error) {
      for (const file of files) if (file !== null) dropShardFile(file);
      throw error;
    } finally {
      clearInterval(timer);
    }
  }

  /** Makes the models' hashes known where the cache needs them; on rank 0, before the others load. */
  learnModels(): Promise<void> {
    return learnModels(this.#shards.filter((shard) => shard !== null));
  }
}
