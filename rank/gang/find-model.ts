/** The model of a load on other nodes than rank 0's: looked for as the user named it, and compared. */
import { hostname } from 'node:os';
import { basename, resolve } from 'node:path';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { ModelSource } from '../../protocol/messages.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { parseModelName } from '../hub/model-name.ts';
import { resolveModel } from '../hub/resolve-model.ts';
import { modelHash, readModel } from '../model/index.ts';

/**
 * What ranks of other nodes need to find models; nothing on one node.
 * @param models - as the user named each, and the absolute path of its folder on this node
 */
export async function modelSources(
  env: Pick<RankEnv, 'groupWorldSize'> | null,
  models: readonly { readonly name: string; readonly path: string }[],
): Promise<ModelSource[]> {
  const sources: ModelSource[] = [];
  if (env === null || env.groupWorldSize === 1) return sources;
  for (const { name, path } of models) sources.push({ path, name: nameElsewhere(name, path), hash: await modelHash(path) });
  return sources;
}

/** A name that means on every node what it meant on this one: a folder, or one commit of a repository. */
function nameElsewhere(name: string, path: string): string {
  const parsed = parseModelName(name);
  if (parsed.type === 'path') return name;
  // A folder comes before what its name may mean otherwise.
  if (resolve(name) === path) return `./${name}`;
  return parsed.type === 'hub' ? `${parsed.repo}@${basename(path)}` : name;
}

/**
 * The folder of rank 0's model on this node; a repository of the hub is downloaded by one rank of the node.
 * @param onBytes - called with the bytes of a file that are there, as they are downloaded, and then of those that are hashed
 * @throws NdsError `ERR_MISMATCH` for another model, with both hashes; else as `resolveModel` and `readModel`, naming
 * the node.
 */
export async function findModel(
  { name, hash, path }: ModelSource,
  { groupRank }: Pick<RankEnv, 'groupRank'>,
  onBytes: (doneBytes: number) => void,
): Promise<string> {
  const node = `node ${groupRank} (${hostname()})`;
  let folder: string;
  try {
    folder = resolve(await resolveModel(name, (progress) => onBytes(progress.doneBytes)));
    readModel(folder);
  } catch (error) {
    const { code, message } = toNdsError(error);
    const place = parseModelName(name).type === 'path' ? resolve(name) : name;
    throw new NdsError(code, `Expected the model of rank 0 on ${node} too, looked for as ${place}: ${message}`, { cause: error });
  }
  const received = await modelHash(folder, onBytes);
  if (received === hash) return folder;
  throw new NdsError(
    'ERR_MISMATCH',
    `Expected the model of rank 0 on ${node} too, with the hash ${hash} of ${path}, but received ${received} of ${folder}`,
  );
}
