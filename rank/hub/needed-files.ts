/** Which files of a repository a load reads. Pure. */
import { NdsError } from '../../protocol/errors.ts';
import type { HubId } from './model-name.ts';

/** A file of a repository, as the hub lists it. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 of its content for a file in LFS, else its git blob id; names the blob in the cache. */
  readonly etag: string;
}

export const configFile = 'config.json';
export const singleWeights = 'model.safetensors';
export const weightIndex = 'model.safetensors.index.json';

/** Everything but weights. Slow tokenizers of Python read the vocabulary and merges. */
const smallFile =
  /^(?:(?:generation_)?config|tokenizer[\w.-]*|special_tokens_map|added_tokens|vocab|chat_template)\.json$|^merges\.txt$|^chat_template\.jinja$|^additional_chat_templates\/[\w.-]+\.jinja$/;
/** Weights of other formats, by whose names a repository without safetensors is described. */
const otherWeights = /\.(?:gguf|bin|onnx|pth?|h5|msgpack|safetensors|npz|ckpt)$/;
const etagPattern = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** Files of a first round: all but the shards, whose names the index says. */
export interface FirstFiles {
  readonly files: readonly HubFile[];
  /** Null where the weights are in one file. */
  readonly index: HubFile | null;
}

/**
 * @throws NdsError `ERR_UNSUPPORTED` for a repository without config.json or safetensors; `ERR_CHECKPOINT` for a file
 * without a hash.
 */
export function chooseFiles(listed: readonly HubFile[], { repo }: HubId): FirstFiles {
  const byPath = new Map(listed.map((file) => [file.path, file]));
  const single = byPath.get(singleWeights);
  const index = single === undefined ? byPath.get(weightIndex) : undefined;
  const weights = single ?? index;
  if (weights === undefined) throw withoutSafetensors(listed, repo);
  if (!byPath.has(configFile)) throw new NdsError('ERR_UNSUPPORTED', `Expected ${configFile} in ${repo} but received none`);
  const small = listed.filter(({ path }) => smallFile.test(path));
  const files = [...small, weights];
  for (const { path, etag } of files) {
    if (!etagPattern.test(etag)) throw new NdsError('ERR_CHECKPOINT', `Expected a hash for ${path} in ${repo} but received "${etag}"`);
  }
  return { files, index: index ?? null };
}

/**
 * The shards that an index names.
 * @throws NdsError `ERR_CHECKPOINT` for an index without a weight map, or one that names a file that is not there.
 */
export function chooseShards(indexText: string, listed: readonly HubFile[], { repo }: HubId): HubFile[] {
  const byPath = new Map(listed.map((file) => [file.path, file]));
  return shardNames(indexText, `${weightIndex} in ${repo}`).map((name) => {
    const file = byPath.get(name);
    if (file !== undefined && etagPattern.test(file.etag)) return file;
    throw new NdsError('ERR_CHECKPOINT', `Expected ${name} in ${repo}, as ${weightIndex} says, but received none`);
  });
}

/** Distinct file names of an index, sorted. @throws NdsError `ERR_CHECKPOINT`. */
export function shardNames(indexText: string, where: string): string[] {
  let weightMap: unknown;
  try {
    weightMap = (JSON.parse(indexText) as { weight_map?: unknown } | null)?.weight_map;
  } catch (error) {
    throw new NdsError('ERR_CHECKPOINT', `Expected JSON in ${where} but received ${(error as Error).message}`);
  }
  const names = [...new Set(Object.values(weightMap ?? {}))].sort();
  if (names.length > 0 && names.every((name): name is string => typeof name === 'string' && /^[^/\\\0]+\.safetensors$/.test(name))) {
    return names;
  }
  throw new NdsError('ERR_CHECKPOINT', `Expected names of .safetensors files as weight_map in ${where} but received others`);
}

function withoutSafetensors(listed: readonly HubFile[], repo: string): NdsError {
  const others = listed.map(({ path }) => path).filter((path) => otherWeights.test(path));
  const received = others.length === 0 ? 'no weights' : others.slice(0, 3).join(', ') + (others.length > 3 ? ', …' : '');
  const advice = others.some((path) => path.endsWith('.gguf'))
    ? 'give the repository that the GGUF files were made from'
    : `give one that has them, or a revision as in ${repo}@refs/pr/1`;
  return new NdsError('ERR_UNSUPPORTED', `Expected ${singleWeights} or ${weightIndex} in ${repo} but received ${received}: ${advice}`);
}
