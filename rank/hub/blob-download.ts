/**
 * Downloads one blob: goes on where an earlier download ended, and checks the hash.
 *
 * `downloadFileToCacheDir` of `@huggingface/hub` does neither, shares one unfinished file between processes, reports no
 * progress and prints to standard output; of that package only the requests are used.
 */
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NdsError } from '../../protocol/errors.ts';
import { isRunning } from '../../protocol/running.ts';
import { isFile } from './cache.ts';
import type { HubFile } from './needed-files.ts';

/** Opens the content of a file from a byte on. */
export type OpenContent = (file: HubFile, offset: number) => Promise<ReadableStream<Uint8Array>>;

/** Thrown by `OpenContent` when the hub sends the whole file instead of a range. */
export class RangeIgnored extends Error {}

export interface BlobDownload {
  readonly file: HubFile;
  /** Path of the blob. */
  readonly blob: string;
  /** Path in the snapshot; without symlinks the blob of another process ends here. */
  readonly pointer: string;
  readonly open: OpenContent;
  readonly onBytes: (doneBytes: number) => void;
}

/** Attempts in a row that yield no byte. */
const maxIdleAttempts = 5;
const firstDelayMs = 250;
/** A connection without a byte for this long counts as lost. */
const stallMs = 30_000;
/** An unfinished file of another process that did not grow for this long is taken over. */
const abandonedMs = 60_000;
/** Owner of an unfinished file whose download failed. */
const noProcess = 0;
const pollMs = 100;
const readBytes = 1 << 20;
/** Larger files are on the disk before they get their name. */
const syncedBytes = 1 << 20;

/**
 * Downloads a blob unless it is there. Of several processes one downloads and the others wait; where that cannot be
 * known, each downloads a file of its own. Unfinished files end in `.incomplete` and name their process.
 *
 * @throws NdsError `ERR_CHECKPOINT` for content with another hash, `ERR_SYSTEM` when the connection is lost for good.
 */
export async function downloadBlob(download: BlobDownload): Promise<void> {
  const { file, blob } = download;
  mkdirSync(dirname(blob), { recursive: true });
  const unfinished = await claim(download);
  if (unfinished === null) return download.onBytes(file.size);
  const handle = await open(unfinished, 'r+');
  try {
    await new Transfer(download, handle).run();
    // A small file costs less to fetch again than to wait for the disk.
    if (file.size > syncedBytes) await handle.sync();
  } catch (error) {
    if (error instanceof NdsError && error.code === 'ERR_CHECKPOINT') rmSync(unfinished, { force: true });
    else rename(unfinished, `${blob}.${ownerName(noProcess)}.incomplete`);
    throw error;
  } finally {
    await handle.close();
  }
  try {
    renameSync(unfinished, blob);
  } catch (error) {
    // Taken over by a process that thought this one was gone, and has ended since.
    if (!isDone(download)) throw error;
  }
}

/** Makes an unfinished file this process's own; null when the blob is complete. */
async function claim(download: BlobDownload): Promise<string | null> {
  const { blob } = download;
  const own = `${blob}.${ownerName()}.incomplete`;
  let lastSizes = '';
  let unchangedSince = performance.now();
  while (true) {
    if (isDone(download)) return null;
    const others = unfinishedFiles(blob);
    const sizes = others.map((path) => `${path} ${sizeOf(path)}`).join('\n');
    if (sizes !== lastSizes) [lastSizes, unchangedSince] = [sizes, performance.now()];
    const areStuck = performance.now() - unchangedSince > abandonedMs;
    const free = others.filter((path) => areStuck || !isOwnerAlive(path)).sort((a, b) => sizeOf(b) - sizeOf(a))[0];
    if (others.length === 0) {
      await (await open(own, 'wx')).close();
      // Of processes that come at the same time, mostly one goes on.
      if (unfinishedFiles(blob)[0] === own) return own;
      rmSync(own);
    }
    if (free !== undefined) {
      if (rename(free, own)) return own;
    } else {
      await sleep(pollMs);
    }
  }
}

/** `false` when another process was first. */
function rename(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function isDone({ file, blob, pointer }: BlobDownload): boolean {
  return [pointer, blob].some((path) => isFile(path) && sizeOf(path) === file.size);
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Host and process, and a number of this download; a process may load the same file twice. */
function ownerName(pid = process.pid): string {
  return `${hostname().replace(/[^\w-]/g, '_')}.${pid}.${randomBytes(4).toString('hex')}`;
}

function unfinishedFiles(blob: string): string[] {
  const name = basename(blob);
  const pattern = /^\.[\w-]+\.\d+\.[0-9a-f]{8}\.incomplete$/;
  const files = readdirSync(dirname(blob)).filter((file) => file.startsWith(name) && pattern.test(file.slice(name.length)));
  return files.sort().map((file) => join(dirname(blob), file));
}

/** Whether the process that an unfinished file names runs; one of another host counts as running. */
function isOwnerAlive(path: string): boolean {
  const [host, pid] = path.split('.').slice(-4);
  if (Number(pid) === noProcess) return false;
  if (host !== hostname().replace(/[^\w-]/g, '_')) return true;
  return isRunning(Number(pid));
}

/** Writes by position, so that a process whose file was taken over writes only what belongs there. */
class Transfer {
  readonly #download: BlobDownload;
  readonly #handle: FileHandle;
  #hash: Hash;
  #position = 0;

  constructor(download: BlobDownload, handle: FileHandle) {
    [this.#download, this.#handle] = [download, handle];
    this.#hash = this.#newHash();
  }

  async run(): Promise<void> {
    const { file } = this.#download;
    const kept = await this.#readKept();
    await this.#fetchRest();
    let received = this.#hash.digest('hex');
    // What an earlier process left may be damaged, by a power failure for one.
    if (received !== file.etag && kept > 0) {
      this.#restart();
      await this.#fetchRest();
      received = this.#hash.digest('hex');
    }
    if (received === file.etag) return;
    throw new NdsError('ERR_CHECKPOINT', `Expected content with hash ${file.etag} for ${file.path} but received ${received}`);
  }

  #newHash(): Hash {
    const { etag, size } = this.#download.file;
    return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
  }

  /** Nothing is truncated: the process that took this file over may have written more. */
  #restart(): void {
    [this.#position, this.#hash] = [0, this.#newHash()];
  }

  /** Hashes what is there. @returns its bytes. */
  async #readKept(): Promise<number> {
    const max = this.#download.file.size;
    if ((await this.#handle.stat()).size > max) await this.#handle.truncate(max);
    const { size } = await this.#handle.stat();
    const buffer = Buffer.alloc(Math.min(readBytes, size));
    while (this.#position < size) {
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.#position);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.#position += bytesRead;
    }
    return this.#position;
  }

  async #fetchRest(): Promise<void> {
    const { file, onBytes } = this.#download;
    onBytes(this.#position);
    for (let idle = 0; this.#position < file.size; idle++) {
      const begin = this.#position;
      const lost = await this.#fetchOnce();
      if (this.#position > begin) idle = 0;
      if (lost instanceof RangeIgnored) this.#restart();
      if (this.#position >= file.size) return;
      if (idle >= maxIdleAttempts) {
        const place = `byte ${this.#position} of ${file.size}`;
        throw new NdsError(
          'ERR_SYSTEM',
          `Expected all of ${file.path} but lost the connection at ${place} (${lost.message}): run it again, and it goes on from there`,
        );
      }
      if (this.#position === begin) await sleep(firstDelayMs * 2 ** idle);
    }
  }

  /** Reads until the end or a lost connection, which is returned. */
  async #fetchOnce(): Promise<Error> {
    const { file, open, onBytes } = this.#download;
    let reader: ReadableStreamDefaultReader<Uint8Array>;
    try {
      reader = (await open(file, this.#position)).getReader();
    } catch (error) {
      if (error instanceof NdsError) throw error;
      return error as Error;
    }
    try {
      while (true) {
        const { value, lost } = await nextChunk(reader);
        if (value === undefined) return lost;
        if (this.#position + value.length > file.size) throw tooLong(file);
        await this.#write(value);
        onBytes(this.#position);
      }
    } finally {
      reader.cancel().catch(() => {}); // has ended, or is of no more use
    }
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let begin = 0; begin < bytes.length; ) {
      const { bytesWritten } = await this.#handle.write(bytes, begin, bytes.length - begin, this.#position + begin);
      begin += bytesWritten;
    }
    this.#hash.update(bytes);
    this.#position += bytes.length;
  }
}

function tooLong({ path, size }: HubFile): NdsError {
  return new NdsError('ERR_CHECKPOINT', `Expected ${size} bytes for ${path} but received more`);
}

type Chunk = { readonly value: Uint8Array; readonly lost?: never } | { readonly value?: never; readonly lost: Error };

async function nextChunk(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Chunk> {
  const timeout = new AbortController();
  const stall = sleep(stallMs, { lost: new Error(`no byte for ${stallMs / 1000} s`) }, { signal: timeout.signal });
  stall.catch(() => {});
  try {
    const next = reader.read().then(({ done, value }): Chunk => (done ? { lost: new Error('the end came early') } : { value }));
    return await Promise.race([next, stall]);
  } catch (error) {
    if (error instanceof NdsError) throw error;
    return { lost: error instanceof Error ? error : new Error(String(error)) };
  } finally {
    timeout.abort();
  }
}
