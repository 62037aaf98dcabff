/** One rank's share of a loaded model; the same class on every rank. */
import { cpuQuota } from '../../protocol/cgroups.ts';
import { type DraftRule, type LoadMessage, progressMs, type ShardReport } from '../../protocol/messages.ts';
import { buildProgram, type Model, readModel, shardReport } from '../model/index.ts';
import { addonFiles, type DraftSpec, native, type OpSpec, type ProgramSpec, type Runner } from '../native.ts';
import type { RankPlace } from './place.ts';
import type { RankIdentity } from './process-group.ts';
import { defaultNumThreads } from './threads.ts';

/** What rank 0 compares between ranks before a load. */
export function ownIdentity(): RankIdentity {
  const { version, cpuInfo } = native();
  return { version, isa: cpuInfo().isa, cudaBuild: addonFiles().cudaBuild?.stamp || 'none' };
}

/** A program and the native runner that loads and runs it. */
export class RankRunner {
  readonly runner: Runner;
  readonly #model: Model;
  readonly #program: ProgramSpec;
  readonly #draft: DraftSpec | undefined;
  readonly #draftRule: DraftRule;
  readonly #place: RankPlace;

  /** Builds this rank's program. @throws NdsError for a bad model, before any other rank is told to load it. */
  constructor(model: Model, message: LoadMessage, place: RankPlace) {
    const { rank, worldSize, localRank, localWorldSize, shmFd, mesh, stateFd, startupTimeoutMs, stepTimeoutMs } = place;
    const { type: _, model: path, numThreads, trace, draft, draftRule, device, deterministic, ...sizes } = message;
    this.#model = model;
    this.#draftRule = draftRule;
    this.#place = place;
    this.#program = buildProgram(model, { rank, worldSize, ...sizes });
    if (draft !== null) {
      const { model: folder, quantization, maxModelLen, isSharded, isGreedy } = draft;
      const share = isSharded ? { rank, worldSize } : { rank: 0, worldSize: 1 };
      // A draft pass samples one row per sequence.
      const limits = { ...sizes, quantization, maxModelLen, maxNumLogitRows: sizes.maxNumSeqs };
      this.#draft = { program: buildProgram(readModel(folder), { ...share, ...limits }), isSharded, isGreedy };
    }
    const cores = Math.min(native().cpuInfo().allowedCores, cpuQuota());
    const threads = numThreads ?? defaultNumThreads(process.env['OMP_NUM_THREADS'], cores);
    const runnerOptions = {
      rank,
      worldSize,
      localRank,
      localWorldSize,
      shmFd,
      mesh,
      numThreads: threads,
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
    return this.#program.ops;
  }

  /** Operators of the draft's program; native numbers them after `ops`. */
  get draftOps(): readonly OpSpec[] {
    return this.#draft?.program.ops ?? [];
  }

  /**
   * Loads the weights. Collective: all ranks must load the same model.
   * @param onLoaded - called with the bytes of weights packed so far, every `progressMs`
   */
  async load(onLoaded: (loadedBytes: number) => void): Promise<ShardReport> {
    const timer = setInterval(() => onLoaded(this.runner.loadedBytes()), progressMs);
    try {
      const { weightBytes, kvBytes, scratchBytes } = await this.runner.load(this.#program, this.#draft, this.#draftRule);
      return { ...shardReport(this.#model, this.#place), weightBytes, kvBytes, scratchBytes };
    } finally {
      clearInterval(timer);
    }
  }
}
