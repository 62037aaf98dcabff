/**
 * Log files of each rank, laid out as torchrun does: `<log-dir>/<run id>_<random>/attempt_<epoch>/<local rank>/stdout.log`.
 */
import { createWriteStream, mkdirSync, mkdtempSync, type WriteStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { NdsError } from '../protocol/errors.ts';

export type StreamName = 'stdout' | 'stderr';

export class LogFiles {
  /** Folder of this run's logs. */
  readonly folder: string;
  readonly #onError: (message: string) => void;
  readonly #streams: WriteStream[] = [];
  #hasFailed = false;

  /** @throws NdsError `ERR_USAGE` when the folder cannot be made. */
  constructor(logDir: string | null, runId: string, onError: (message: string) => void) {
    const parent = logDir === null ? tmpdir() : resolve(logDir);
    try {
      mkdirSync(parent, { recursive: true });
      this.folder = mkdtempSync(join(parent, `${runId.replace(/[^\w-]/g, '_')}_`));
    } catch (error) {
      throw new NdsError('ERR_USAGE', `Expected a writable folder for --log-dir but received ${parent}: ${(error as Error).message}`);
    }
    this.#onError = onError;
  }

  /** Null where there is no room for a folder. */
  open(epoch: number, localRank: number, name: StreamName): WriteStream | null {
    const folder = join(this.folder, `attempt_${epoch}`, String(localRank));
    const path = join(folder, `${name}.log`);
    try {
      mkdirSync(folder, { recursive: true });
    } catch (error) {
      this.#fail(path, error as Error);
      return null;
    }
    const stream = createWriteStream(path);
    stream.on('error', (error) => this.#fail(path, error));
    this.#streams.push(stream);
    return stream;
  }

  async close(): Promise<void> {
    const open = this.#streams.filter((stream) => !stream.destroyed);
    await Promise.all(open.map((stream) => new Promise<void>((resolve) => stream.once('close', () => resolve()).end())));
  }

  /** Said once: a full disk fails every file. */
  #fail(path: string, error: Error): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#onError(`could not write ${path}: ${error.message}; this and other logs that fail end there, the job goes on`);
  }
}
