/** Which LLMs may be open in one process at a time. */
import { NdsError } from '../protocol/errors.ts';
import type { RankEnv } from '../protocol/rank-env.ts';

const advice = 'close() the one before loading the next';

/** One LLM's place in its process, from the start of its load to its end. */
export class OpenShare {
  static readonly #open = new Set<OpenShare>();
  static #lastLoad: Promise<unknown> = Promise.resolve();
  #device: 'cpu' | 'cuda' = 'cpu';

  private constructor() {
    OpenShare.#open.add(this);
  }

  /**
   * Takes a place.
   * @throws NdsError `ERR_USAGE` for a second one where ranks, or the launcher's trace or plan log, serve one LLM.
   */
  static enter(env: RankEnv | null): OpenShare {
    if (OpenShare.#open.size > 0 && env !== null) {
      if (env.worldSize > 1) throw refuse(`on ${env.worldSize} ranks, which run the plans of one model in one order`);
      if (env.traceFile !== '') throw refuse('with ndsrun --trace, whose steps are those of one model');
      if (env.recordFile !== '') throw refuse('with ndsrun --record, whose plans are those of one model');
    }
    return new OpenShare();
  }

  /** Loads after the loads before it, so that each measures the memory that those left. */
  load<T>(load: () => Promise<T>): Promise<T> {
    const loading = OpenShare.#lastLoad.then(load);
    OpenShare.#lastLoad = loading.catch(() => {});
    return loading;
  }

  /** @throws NdsError `ERR_USAGE` for a second LLM on CUDA, whose memory one takes as a whole. */
  use(device: 'cpu' | 'cuda'): void {
    const isTaken = [...OpenShare.#open].some((other) => other !== this && other.#device === 'cuda');
    if (device === 'cuda' && isTaken) throw refuse('on CUDA, whose memory one takes as a whole');
    this.#device = device;
  }

  /** Gives the place back; may be called more than once. */
  leave(): void {
    OpenShare.#open.delete(this);
  }
}

function refuse(where: string): NdsError {
  return new NdsError('ERR_USAGE', `Expected one open LLM at a time ${where}: ${advice}`);
}
