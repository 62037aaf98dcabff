/**
 * The cache of Python's huggingface_hub: `models--ORG--NAME/{blobs,refs,snapshots}`. A blob is named by its hash, a
 * snapshot is a folder of relative links to blobs, a ref holds the commit of a branch or tag.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { type HubId, isCommit } from './model-name.ts';
import { configFile, shardNames, singleWeights, weightIndex } from './needed-files.ts';

const folderPrefix = 'models--';

/** The folder of a repository in the cache. */
export function repoFolder(cacheDir: string, repo: string): string {
  return join(cacheDir, folderPrefix + repo.replace('/', '--'));
}

/** `ORG/NAME` of a folder in the cache; null for another. */
export function repoOfFolder(folder: string): string | null {
  return /^models--[^-]/.test(folder) ? folder.slice(folderPrefix.length).replace('--', '/') : null;
}

export function snapshotFolder(cacheDir: string, repo: string, commit: string): string {
  return join(repoFolder(cacheDir, repo), 'snapshots', commit);
}

/** The commit of a revision in the cache; null if it is not there. */
export function cachedCommit(cacheDir: string, { repo, revision }: HubId): string | null {
  if (isCommit(revision)) return revision;
  const file = join(repoFolder(cacheDir, repo), 'refs', revision);
  if (!isFile(file)) return null;
  const commit = readFileSync(file, 'utf8').trim();
  return isCommit(commit) ? commit : null;
}

/** The snapshot of a revision; null if the cache lacks it, its configuration or a part of its weights. */
export function cachedSnapshot(cacheDir: string, id: HubId): string | null {
  const commit = cachedCommit(cacheDir, id);
  const folder = commit === null ? null : snapshotFolder(cacheDir, id.repo, commit);
  return folder !== null && isComplete(folder) ? folder : null;
}

/** Whether a snapshot has a configuration and all weights. A model may have no tokenizer. */
export function isComplete(folder: string): boolean {
  const has = (file: string) => isFile(join(folder, file));
  return has(configFile) && hasWeights(folder, has);
}

function hasWeights(folder: string, has: (file: string) => boolean): boolean {
  if (has(singleWeights)) return true;
  if (!has(weightIndex)) return false;
  const index = join(folder, weightIndex);
  return shardNames(readFileSync(index, 'utf8'), index).every(has);
}

/** Whether a path is a file, or a link to one. */
export function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** Makes `ORG/NAME@revision` mean a commit. */
export function writeRef(cacheDir: string, { repo, revision }: HubId, commit: string): void {
  if (isCommit(revision)) return;
  const file = join(repoFolder(cacheDir, repo), 'refs', revision);
  if (cachedCommit(cacheDir, { repo, revision }) === commit) return;
  mkdirSync(dirname(file), { recursive: true });
  // Renamed into place, so that no reader sees half of it.
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, commit);
  renameSync(temporary, file);
}

/**
 * Links a file of a snapshot to its blob. Without symlinks the blob becomes the file, as in Python's cache.
 * @throws NdsError `ERR_SYSTEM` when the cache cannot be written.
 */
export function linkBlob(blob: string, pointer: string, usesSymlinks: boolean): void {
  mkdirSync(dirname(pointer), { recursive: true });
  if (isFile(pointer)) return;
  rmSync(pointer, { force: true }); // a link whose blob is gone
  try {
    if (usesSymlinks) symlinkSync(relative(dirname(pointer), blob), pointer);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!['EEXIST', 'EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP'].includes(code ?? '')) throw error;
  }
  if (existsSync(pointer)) return;
  try {
    renameSync(blob, pointer);
  } catch (error) {
    // Another process was first.
    if (!isFile(pointer)) throw error;
  }
}

/** Translates a failure of the file system. */
export function cacheError(error: unknown, cacheDir: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof NdsError || typeof code !== 'string' || !/^E[A-Z]+$/.test(code)) return error;
  return new NdsError('ERR_SYSTEM', `Expected to write to the cache ${cacheDir} (HF_HUB_CACHE) but received ${message}`, { cause: error });
}
