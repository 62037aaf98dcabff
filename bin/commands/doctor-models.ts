/** The models of this machine, shipped with the package and in the hub's cache, and what each needs. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NdsError } from '../../protocol/errors.ts';
import type { Environment } from '../../protocol/rank-env.ts';
import { readModel } from '../../rank/model/index.ts';
import { packageFolder } from '../package-files.ts';

export interface ModelFolder {
  /** What `LLM.load` takes. */
  readonly name: string;
  readonly folder: string;
}

/** A model's memory, or why it is not supported. */
export interface ModelNeeds extends ModelFolder {
  readonly weightBytes: number;
  /** Weights that every decoded token reads: all but the embedding. */
  readonly readBytes: number;
  /** Weights, and fp32 keys and values of one sequence of `contextTokens`. */
  readonly neededBytes: number;
  readonly refused: string | null;
}

/** Tokens of a sequence whose KV cache counts. */
export const contextTokens = 2048;

/** Shipped models, then cached ones, by name. */
export function findModels(env: Environment): ModelFolder[] {
  const shipped = fileURLToPath(new URL('examples/models', packageFolder()));
  const names = entries(shipped).sort();
  return [...names.map((name) => ({ name: `nds:${name}`, folder: join(shipped, name) })), ...cachedModels(hubCache(env))];
}

/** Python's folder of `models--ORG--NAME`. */
function hubCache(env: Environment): string {
  const home = env['HF_HOME'] || join(env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache'), 'huggingface');
  return env['HF_HUB_CACHE'] || join(home, 'hub');
}

/** The snapshot that `main` names, of each repository that has a configuration there. */
function cachedModels(cache: string): ModelFolder[] {
  return entries(cache)
    .sort()
    .flatMap((entry) => {
      const [, org, name] = /^models--(.+?)--(.+)$/.exec(entry) ?? [];
      const ref = join(cache, entry, 'refs', 'main');
      if (org === undefined || !existsSync(ref)) return [];
      const folder = join(cache, entry, 'snapshots', readFileSync(ref, 'utf8').trim());
      return existsSync(join(folder, 'config.json')) ? [{ name: `${org}/${name}`, folder }] : [];
    });
}

/** Reads a model's configuration and tensor headers. */
export function needsOf({ name, folder }: ModelFolder): ModelNeeds {
  try {
    const { config, tensors, weightBytes } = readModel(folder);
    const { numRows, numCols, dtype } = tensors.embedTokens;
    const readBytes = weightBytes - numRows * numCols * (dtype === 'float32' ? 4 : 2);
    const kvBytes = config.numHiddenLayers * config.numKvHeads * config.headDim * 2 * 4 * contextTokens;
    return { name, folder, weightBytes, readBytes, neededBytes: weightBytes + kvBytes, refused: null };
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    return { name, folder, weightBytes: 0, readBytes: 0, neededBytes: 0, refused: error.message };
  }
}

function entries(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}
