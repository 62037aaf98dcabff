/** Downloads what a load needs of a repository into the cache. */
import { mkdirSync, readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import type { OnLoadProgress } from '../load-progress.ts';
import { downloadBlob } from './blob-download.ts';
import { cacheError, isFile, linkBlob, repoFolder, snapshotFolder, writeRef } from './cache.ts';
import { describeId, HubClient, notReachable } from './hub-client.ts';
import type { HubSettings } from './hub-settings.ts';
import type { HubId } from './model-name.ts';
import { chooseFiles, chooseShards, type HubFile } from './needed-files.ts';

/**
 * Brings the cache up to the hub's revision.
 *
 * @returns the snapshot folder.
 * @throws NdsError `ERR_MODEL_NOT_FOUND` without network, repository or access; `ERR_UNSUPPORTED` without safetensors;
 * `ERR_CHECKPOINT` for content with another hash; `ERR_SYSTEM` for a full or read-only disk, or a lost connection.
 */
export async function pullModel(id: HubId, settings: HubSettings, onProgress: OnLoadProgress = () => {}): Promise<string> {
  if (settings.isOffline) throw notReachable(id, settings, 'no permission to ask it (HF_HUB_OFFLINE)');
  const client = new HubClient(settings, id);
  const commit = await client.commit();
  const listed = await client.files(commit);
  const { files, index } = chooseFiles(listed, id);
  const target = { id, settings, folder: snapshotFolder(settings.cacheDir, id.repo, commit), onProgress, open: client.opener(commit) };
  try {
    await fetchAll(files, target);
    if (index !== null) await fetchAll(chooseShards(readFileSync(join(target.folder, index.path), 'utf8'), listed, id), target);
    // Last, so that a snapshot which is not complete has no name.
    writeRef(settings.cacheDir, id, commit);
  } catch (error) {
    throw cacheError(error, settings.cacheDir);
  }
  return target.folder;
}

interface Target {
  readonly id: HubId;
  readonly settings: HubSettings;
  readonly folder: string;
  readonly onProgress: OnLoadProgress;
  readonly open: ReturnType<HubClient['opener']>;
}

/** One after another, each with all of the connection. */
async function fetchAll(files: readonly HubFile[], target: Target): Promise<void> {
  const { settings, folder, id } = target;
  const missing = files.filter(({ path }) => !isFile(join(folder, path)));
  const blobs = join(repoFolder(settings.cacheDir, id.repo), 'blobs');
  await checkSpace(
    missing.filter(({ etag }) => !isFile(join(blobs, etag))),
    blobs,
    id,
  );
  for (const file of missing) {
    const [blob, pointer] = [join(blobs, file.etag), join(folder, file.path)];
    const onBytes = (doneBytes: number) => target.onProgress({ phase: 'download', doneBytes, totalBytes: file.size, file: file.path });
    await downloadBlob({ file, blob, pointer, open: target.open, onBytes });
    linkBlob(blob, pointer, settings.usesSymlinks);
  }
}

/** @throws NdsError `ERR_SYSTEM` when the disk has less free space than the files take. */
async function checkSpace(files: readonly HubFile[], folder: string, id: HubId): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const { bavail, bsize } = await statfs(folder);
  const [needed, free] = [files.reduce((sum, { size }) => sum + size, 0), bavail * bsize];
  if (needed <= free) return;
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  const where = `in ${folder} (HF_HUB_CACHE)`;
  throw new NdsError('ERR_SYSTEM', `Expected ${gib(needed)} GiB for ${describeId(id)} ${where} but ${gib(free)} GiB are free`);
}
