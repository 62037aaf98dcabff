/** Reads TAP line by line: keeps the lines for a reader, and the counts. */

/** @typedef {{ passed: number, failed: number, skipped: number }} Counts */

/** Reduces a TAP stream to one line per test file, every failure in full, and the counts of tap's closing line. */
export class TapSummary {
  /** @type {Counts} */
  counts = { passed: 0, failed: 0, skipped: 0 };
  #isInDiagnostic = false;
  #isFailure = false;

  /**
   * The output for one line of TAP; `null` for none.
   * @param {string} line
   * @returns {string | null}
   */
  take(line) {
    if (this.#isInDiagnostic) {
      if (/^\s+\.\.\.$/.test(line)) this.#isInDiagnostic = false;
      return this.#isFailure ? line : null;
    }
    if (/^\s+---$/.test(line)) {
      this.#isInDiagnostic = true;
      return this.#isFailure ? line : null;
    }
    const totals = /^# \{ (total: .*) \}$/.exec(line);
    if (totals !== null) this.#count(totals[1] ?? '');
    this.#isFailure = /^\s*not ok\b(?!.*# (?:skip|todo)\b)/i.test(line);
    const isFile = /^(?:not )?ok\b/.test(line);
    return this.#isFailure || isFile || line.startsWith('Bail out!') ? line : null;
  }

  /** @param {string} totals `total: 3, pass: 2, skip: 1` */
  #count(totals) {
    const count = (/** @type {string} */ name) => Number(new RegExp(`\\b${name}: (\\d+)`).exec(totals)?.[1] ?? 0);
    this.counts = { passed: count('pass'), failed: count('fail'), skipped: count('skip') + count('todo') };
  }
}

/**
 * The closing line. A run that fails without a failed assertion (a crash, no tests) counts as one failure.
 * @param {Counts} counts
 * @param {boolean} hasFailed
 */
export function closingLine({ passed, failed, skipped }, hasFailed) {
  return `${passed} passed, ${hasFailed ? Math.max(failed, 1) : failed} failed, ${skipped} skipped`;
}
