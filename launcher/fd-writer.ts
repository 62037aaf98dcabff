/**
 * Writes to a descriptor without waiting for its reader: output that is not yet taken is spooled, in memory, then in a
 * file.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, write, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const batchBytes = 64 * 1024;

/** Max output pending in memory, and in a file; past both, output is dropped and counted. */
export interface SpoolLimits {
  readonly memoryBytes: number;
  readonly fileBytes: number;
}

const defaultLimits: SpoolLimits = { memoryBytes: 4 << 20, fileBytes: 1 << 30 };

/**
 * An ordered, asynchronous writer. A write that blocks (a full pipe, a stopped terminal) blocks a thread of libuv's
 * pool, never JavaScript, so the launcher keeps reading its ranks. The first write that fails is the last, and is told
 * to `onError` once: `EPIPE` = nobody can read any more.
 */
export class FdWriter {
  readonly #fd: number;
  readonly #onError: (error: NodeJS.ErrnoException) => void;
  readonly #limits: SpoolLimits;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  #spool: Spool | null = null;
  #droppedBytes = 0;
  #pumping: Promise<void> | null = null;
  #closed = false;

  constructor(fd: number, onError: (error: NodeJS.ErrnoException) => void, limits: SpoolLimits = defaultLimits) {
    this.#fd = fd;
    this.#onError = onError;
    this.#limits = limits;
  }

  write(bytes: Buffer): void {
    if (this.#closed || bytes.length === 0) return;
    if (this.#spool === null && this.#droppedBytes === 0 && this.#queuedBytes + bytes.length <= this.#limits.memoryBytes) {
      this.#queue.push(bytes);
      this.#queuedBytes += bytes.length;
    } else {
      // After a gap everything is dropped until the notice of it is written.
      if (this.#droppedBytes === 0) this.#spool ??= openSpool();
      if (!this.#spool?.append(bytes, this.#limits.fileBytes)) this.#droppedBytes += bytes.length;
    }
    this.#pumping ??= this.#pump();
  }

  /** Resolves when everything was written, or a write has failed. */
  async drained(): Promise<void> {
    while (this.#pumping !== null) await this.#pumping;
  }

  async #pump(): Promise<void> {
    for (let batch = this.#next(); batch !== null; batch = this.#next()) {
      const error = await writeAll(this.#fd, batch);
      if (error === null) continue;
      this.#closed = true;
      this.#queue = [];
      this.#droppedBytes = 0;
      this.#spool?.close();
      this.#spool = null;
      this.#onError(error);
    }
    this.#pumping = null;
  }

  #next(): Buffer | null {
    if (this.#queue.length > 0) {
      const batch: Buffer[] = [];
      let size = 0;
      while (this.#queue.length > 0 && size < batchBytes) {
        const chunk = this.#queue.shift() as Buffer;
        batch.push(chunk);
        size += chunk.length;
      }
      this.#queuedBytes -= size;
      return batch.length === 1 ? (batch[0] as Buffer) : Buffer.concat(batch, size);
    }
    const spooled = this.#spool?.read() ?? null;
    if (spooled !== null) return spooled;
    this.#spool?.close();
    this.#spool = null;
    if (this.#droppedBytes === 0) return null;
    const notice = `\n[ndsrun] ${this.#droppedBytes} bytes of output were dropped here: they were not read in time\n`;
    this.#droppedBytes = 0;
    return Buffer.from(notice);
  }
}

/** A byte queue in an unlinked file. */
class Spool {
  readonly #fd: number;
  #readOffset = 0;
  #writeOffset = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Whether the bytes were kept; false past the limit or on a full disk. */
  append(bytes: Buffer, maxBytes: number): boolean {
    if (this.#writeOffset + bytes.length > maxBytes) return false;
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done, bytes.length - done, this.#writeOffset + done);
    } catch {
      return false;
    }
    this.#writeOffset += bytes.length;
    return true;
  }

  read(): Buffer | null {
    const size = Math.min(batchBytes, this.#writeOffset - this.#readOffset);
    if (size === 0) return null;
    const bytes = Buffer.allocUnsafe(size);
    const got = readSync(this.#fd, bytes, 0, size, this.#readOffset);
    this.#readOffset += got;
    if (this.#readOffset === this.#writeOffset) {
      ftruncateSync(this.#fd, 0);
      this.#readOffset = this.#writeOffset = 0;
    }
    return bytes.subarray(0, got);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Null where there is no room for the file. */
function openSpool(): Spool | null {
  try {
    const folder = mkdtempSync(join(tmpdir(), 'nds-'));
    try {
      return new Spool(openSync(join(folder, 'spool'), 'wx+', 0o600));
    } finally {
      rmSync(folder, { recursive: true });
    }
  } catch {
    return null;
  }
}

/** Resolves to the error that ended the writing; null when all is written. */
async function writeAll(fd: number, bytes: Buffer): Promise<NodeJS.ErrnoException | null> {
  for (let done = 0; done < bytes.length; ) {
    const { error, written } = await new Promise<{ error: NodeJS.ErrnoException | null; written: number }>((resolve) => {
      write(fd, bytes, done, bytes.length - done, null, (error, written) => resolve({ error, written }));
    });
    if (error === null) done += written;
    // Another process made the descriptor non-blocking: retry.
    else if (error.code === 'EAGAIN') await new Promise((resolve) => setTimeout(resolve, 10));
    else if (error.code !== 'EINTR') return error;
  }
  return null;
}
