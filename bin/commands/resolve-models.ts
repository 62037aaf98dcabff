/** Models of a command line. On one node they are found or downloaded before ranks start: a bar has no rank's prefix then. */
import { type LaunchValues, resolveLaunchOptions } from '../../launcher/options.ts';
import { resolveModel } from '../../rank/hub/resolve-model.ts';
import type { LLMOptions } from '../../rank/index.ts';
import type { LoadProgress, OnLoadProgress } from '../../rank/load-progress.ts';
import { ProgressBar } from '../progress-bar.ts';
import { checkBeforeBuild } from './check-models.ts';

interface Options {
  readonly 'dry-run'?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

/**
 * The folder of a model, checked where a core is yet to be built; the name itself with `--dry-run`, which downloads nothing.
 * @throws NdsError as `resolveModel` and `checkBeforeBuild`.
 */
export async function resolveNamed<T extends string | null | undefined>(name: T, options: Options = {}): Promise<T> {
  if (typeof name !== 'string' || options['dry-run']) return name;
  const bars = new DownloadBars(options.quiet ? null : process.stderr);
  const folder = await bars.during((onProgress) => resolveModel(name, onProgress));
  await checkBeforeBuild(folder);
  return folder as T;
}

/**
 * What ranks load: the folder of a model; on several nodes its name, as each node has its own folder. There the ranks
 * look for it, so that a node without it ends the job instead of leaving the others to wait.
 * @throws NdsError as `resolveNamed`, and `ERR_USAGE` for options of the launcher that are not valid.
 */
export async function resolveForRanks<T extends string | null>(name: T, options: Options & LaunchValues): Promise<T> {
  const { nnodes } = resolveLaunchOptions(options, process.env, '', []);
  return nnodes > 1 ? name : await resolveNamed(name, options);
}

/** A request of ranks with its model and draft model by `resolveForRanks`. @throws NdsError as that. */
export async function resolveModels<Request extends { readonly model: string; readonly load: LLMOptions }>(
  request: Request,
  options: Options & LaunchValues,
): Promise<Request> {
  const model = await resolveForRanks(request.model, options);
  const { speculativeConfig } = request.load;
  if (speculativeConfig?.model === undefined) return { ...request, model };
  const draft = await resolveForRanks(speculativeConfig.model, options);
  return { ...request, model, load: { ...request.load, speculativeConfig: { ...speculativeConfig, model: draft } } };
}

/** A bar per file; a file that is complete ends its bar. */
export class DownloadBars {
  readonly #stream: NodeJS.WriteStream | null;
  #file: string | null = null;
  #bar: ProgressBar | null = null;

  /** `stream` null: nothing is shown. */
  constructor(stream: NodeJS.WriteStream | null) {
    this.#stream = stream;
  }

  /** Shows bars while `work` runs; ends the last one also when it fails, so that the error has a line of its own. */
  async during<T>(work: (onProgress: OnLoadProgress) => Promise<T>): Promise<T> {
    try {
      return await work((progress) => this.#update(progress));
    } finally {
      this.#bar?.end();
      this.#bar = null;
    }
  }

  #update({ file, doneBytes, totalBytes }: LoadProgress): void {
    if (file !== this.#file) {
      this.#bar?.end();
      this.#bar = null;
    }
    this.#bar ??= new ProgressBar(file ?? '', 'bytes', this.#stream);
    this.#file = file;
    this.#bar.update(doneBytes, totalBytes);
  }
}
