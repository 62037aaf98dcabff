/** The models of this machine: shipped and cached. */
import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { cachedCommit, isComplete, repoFolder, repoOfFolder } from './cache.ts';
import { readHubSettings } from './hub-settings.ts';
import { parseModelName, shippedModels, shippedPrefix } from './model-name.ts';
import { shippedFolder } from './resolve-model.ts';

export interface ListedModel {
  /** What `LLM.load` takes. */
  readonly name: string;
  readonly folder: string;
  /** Of its files, following links. */
  readonly bytes: number;
  /** When a file was read last, where the file system records it, by ISO 8601; null for a shipped model. */
  readonly usedAt: string | null;
}

/** Shipped models, then those of the cache with a configuration and all weights, by name. */
export function listModels(): ListedModel[] {
  const shipped = shippedModels.map((name) => ({ ...describe(shippedPrefix + name, shippedFolder(name)), usedAt: null }));
  return [...shipped, ...listCached(readHubSettings().cacheDir)];
}

function listCached(cacheDir: string): ListedModel[] {
  if (!existsSync(cacheDir)) return [];
  return readdirSync(cacheDir)
    .sort()
    .flatMap((entry) => {
      const repo = repoOfFolder(entry);
      const snapshots = join(cacheDir, entry, 'snapshots');
      if (repo === null || !existsSync(snapshots)) return [];
      const main = cachedCommit(cacheDir, { repo, revision: 'main' });
      const complete = readdirSync(snapshots).filter((commit) => isComplete(join(snapshots, commit)));
      return complete.map((commit) => describe(commit === main ? repo : `${repo}@${commit}`, join(snapshots, commit)));
    });
}

function describe(name: string, folder: string): ListedModel {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((file) =>
    statSync(join(folder, file), { throwIfNoEntry: false }),
  );
  const stats = files.filter((found) => found?.isFile());
  const bytes = stats.reduce((sum, found) => sum + (found?.size ?? 0), 0);
  const usedAt = new Date(Math.max(...stats.map((found) => found?.atimeMs ?? 0))).toISOString();
  return { name, folder, bytes, usedAt };
}

/**
 * Removes a repository with all its revisions from the cache.
 * @returns the bytes that its blobs took.
 * @throws NdsError `ERR_USAGE` for a name that is none of a repository, `ERR_MODEL_NOT_FOUND` when the cache lacks it.
 */
export function removeModel(name: string): number {
  const parsed = parseModelName(name);
  if (parsed.type !== 'hub' || name.includes('@'))
    throw new NdsError('ERR_USAGE', `Expected ORG/NAME, all of whose revisions are removed, but received ${name}`);
  const { cacheDir } = readHubSettings();
  const folder = repoFolder(cacheDir, parsed.repo);
  if (!existsSync(folder)) throw new NdsError('ERR_MODEL_NOT_FOUND', `Expected ${name} in ${cacheDir} but received nothing there`);
  const bytes = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath ?? entry.path, entry.name)).size, 0);
  // Gone under its name at once: no load finds half of it.
  const removed = join(cacheDir, `.${basename(folder)}.${process.pid}.removed`);
  renameSync(folder, removed);
  rmSync(removed, { recursive: true, force: true });
  rmSync(join(cacheDir, '.locks', basename(folder)), { recursive: true, force: true });
  return bytes;
}
