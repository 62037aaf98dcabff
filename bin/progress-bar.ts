/** One line of progress: a bar that is redrawn on a terminal, one line at the end in a log, nothing when quiet. */
import type { WriteStream } from 'node:tty';

/** Redraws no more often. */
const redrawMs = 100;
const barWidth = 20;
const eraseLine = '\r\u001b[K';

type Stream = Pick<NodeJS.WritableStream, 'write'> & Partial<Pick<WriteStream, 'isTTY' | 'columns'>>;

export class ProgressBar {
  readonly #label: string;
  readonly #unit: 'bytes' | 'items';
  readonly #stream: Stream | null;
  readonly #delayMs: number;
  readonly #begin = performance.now();
  #drawnAt = Number.NEGATIVE_INFINITY;
  #done = 0;
  #total = 0;

  /** `stream` null: nothing is shown. What ends within `delayMs` is not shown either. */
  constructor(label: string, unit: 'bytes' | 'items', stream: Stream | null = process.stderr, delayMs = 0) {
    [this.#label, this.#unit, this.#stream, this.#delayMs] = [label, unit, stream, delayMs];
  }

  update(done: number, total: number): void {
    [this.#done, this.#total] = [done, total];
    if (!this.#stream?.isTTY || !this.#isLong || performance.now() - this.#drawnAt < redrawMs) return;
    this.#drawnAt = performance.now();
    this.#stream.write(`${eraseLine}${progressText(this.#label, this.#unit, done, total, this.#seconds, this.#columns)}`);
  }

  /** Ends the line with what was done and how fast. */
  end(): void {
    if (this.#stream === null || !this.#isLong) return;
    this.#drawnAt = Number.NEGATIVE_INFINITY;
    const text = progressText(this.#label, this.#unit, this.#done, this.#total, this.#seconds, this.#columns);
    this.#stream.write(`${this.#stream.isTTY ? eraseLine : ''}${text}\n`);
  }

  /** Removes an unfinished line: what it shows has failed. */
  erase(): void {
    if (this.#drawnAt > 0) this.#stream?.write(eraseLine);
    this.#drawnAt = Number.NEGATIVE_INFINITY;
  }

  get #isLong(): boolean {
    return this.#seconds * 1000 >= this.#delayMs;
  }

  /** A terminal of unknown width says 0. */
  get #columns(): number {
    return this.#stream?.columns || 80;
  }

  get #seconds(): number {
    return (performance.now() - this.#begin) / 1000;
  }
}

let lastOpened: ProgressBar | null = null;

/** The bar of a command on standard error: nothing for what takes less than a second, or with `--quiet`. */
export function openBar(label: string, unit: 'bytes' | 'items', isQuiet: boolean): ProgressBar {
  const bar = new ProgressBar(label, unit, isQuiet ? null : process.stderr, 1000);
  // An error that ends the process gets a line of its own. Bars come one after another.
  if (lastOpened === null) process.once('exit', () => lastOpened?.erase());
  lastOpened = bar;
  return bar;
}

/** `label [####····] 12 % 1.2 of 3.4 GB, 0.8 GB/s`, cut to `columns - 1` characters so that a terminal does not wrap it. Pure. */
export function progressText(
  label: string,
  unit: 'bytes' | 'items',
  done: number,
  total: number,
  seconds: number,
  columns: number,
): string {
  const share = total > 0 ? Math.min(1, done / total) : 1;
  const filled = Math.floor(share * barWidth);
  const bar = `[${'#'.repeat(filled)}${'·'.repeat(barWidth - filled)}]`;
  const amounts =
    unit === 'items'
      ? `${done} of ${total}`
      : `${bytesText(done)} of ${bytesText(total)}${seconds > 0 ? `, ${bytesText(done / seconds)}/s` : ''}`;
  return `${label} ${bar} ${Math.floor(share * 100)} % ${amounts}`.slice(0, Math.max(1, columns - 1));
}

/** Bytes in decimal units, three digits. Pure. */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${power === 0 ? Math.round(value) : value.toPrecision(3)} ${units[power]}`;
}
