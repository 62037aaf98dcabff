/** Logits of a reference model, kept on disk while another model is loaded: a text's are larger than most models. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';

/** Rows of fp32, written once in order and read by window. The file has no name: it ends with the process. */
export class LogitsFile {
  readonly #file: number;
  /** Byte ranges of the windows. */
  readonly #windows: (readonly [begin: number, end: number])[] = [];

  /** @throws NdsError `ERR_SYSTEM` where the folder for temporary files takes none. */
  constructor() {
    this.#file = withSystemError(() => {
      const folder = mkdtempSync(join(tmpdir(), 'nds-logits-'));
      try {
        return openSync(join(folder, 'logits'), 'wx+', 0o600);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  }

  /** @throws NdsError `ERR_SYSTEM` for a full disk. */
  append(logits: Float32Array): void {
    const begin = this.#windows.at(-1)?.[1] ?? 0;
    const bytes = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
    withSystemError(() => writeFileSync(this.#file, bytes));
    this.#windows.push([begin, begin + bytes.length]);
  }

  /** The logits of the i-th `append`. @throws NdsError `ERR_SYSTEM` where they cannot be read. */
  read(i: number): Float32Array {
    const [begin, end] = this.#windows[i] ?? [0, 0];
    const bytes = new Uint8Array(end - begin);
    withSystemError(() => {
      for (let done = 0; done < bytes.length; ) {
        const count = readSync(this.#file, bytes, done, bytes.length - done, begin + done);
        if (count === 0) throw new Error(`an end after ${done} of ${bytes.length} bytes`);
        done += count;
      }
    });
    return new Float32Array(bytes.buffer);
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

function withSystemError<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new NdsError('ERR_SYSTEM', `Expected room for logits in ${tmpdir()} but received ${message}`, { cause: error });
  }
}
