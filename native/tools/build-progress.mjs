/** How far a build is: one line that is redrawn on a terminal, a line now and then in a log. */

/** Between two lines in a log. */
const logMs = 10_000;
const eraseLine = '\r\u001b[K';

/**
 * The newest progress in the output of Ninja (`[12/60] …`) or of make (`[ 20%] …`), or `null`. Pure.
 * @param {string} output
 */
export function progressIn(output) {
  const [, steps = null, percent = null] = [...output.matchAll(/^\[(?:(\d+\/\d+)| *(\d+)%)\] /gm)].at(-1) ?? [];
  return steps ?? (percent === null ? null : `${percent} %`);
}

export class BuildProgress {
  #stream;
  #now;
  #begin;
  #shownAt;
  #isDrawn = false;

  /**
   * @param {{ write(text: string): unknown, isTTY?: boolean }} stream
   * @param {() => number} now milliseconds
   */
  constructor(stream = process.stderr, now = () => performance.now()) {
    this.#stream = stream;
    this.#now = now;
    this.#begin = now();
    this.#shownAt = this.#begin;
  }

  /** @param {string} progress such as `12/60` */
  show(progress) {
    const text = `[${progress}] ${this.#seconds} s`;
    if (this.#stream.isTTY) {
      this.#stream.write(eraseLine + text);
      this.#isDrawn = true;
    } else if (this.#now() - this.#shownAt >= logMs) {
      this.#stream.write(`${text}\n`);
      this.#shownAt = this.#now();
    }
  }

  /** Removes the line from a terminal. */
  end() {
    if (this.#isDrawn) this.#stream.write(eraseLine);
    this.#isDrawn = false;
  }

  get #seconds() {
    return Math.round((this.#now() - this.#begin) / 1000);
  }
}
