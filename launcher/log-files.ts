/**
 * Log files of each rank, laid out as torchrun does: `<log-dir>/<run id>_<random>/attempt_0/<local rank>/stdout.log`.
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

  open(localRank: number, name: StreamName): WriteStream {
    const folder = join(this.folder, 'attempt_0', String(localRank));
    mkdirSync(folder, { recursive: true });
    const path = join(folder, `${name}.log`);
    const stream = createWriteStream(path);
    stream.on('error', (error) => this.#onError(`could not write ${path}, which ends here: ${error.message}`));
    this.#streams.push(stream);
    return stream;
  }

  async close(): Promise<void> {
    const open = this.#streams.filter((stream) => !stream.destroyed);
    await Promise.all(open.map((stream) => new Promise<void>((resolve) => stream.once('close', () => resolve()).end())));
  }
}
