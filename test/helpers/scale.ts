/** How much of the heavy tests is run. */
const extent = process.env['NDS_TEST_FULL'] ?? '';

/**
 * Whether heavy files run all of their cases: `NDS_TEST_FULL=1`, as in CI. Otherwise each runs a fixed part that takes
 * at most a minute on two quiet cores.
 */
export const isFull = extent === '1' || extent === 'all';
/** Whether whole models also run all cases on the emulated CUDA device: `NDS_TEST_FULL=all`, tens of minutes. */
export const isAll = extent === 'all';

/** Options of a test that only a full run runs. */
export const fullOnly = { skip: !isFull && 'NDS_TEST_FULL=1 runs it' };

/** All cases in a full run, else every `divisor`-th, starting with the first. */
export function part<Case>(cases: readonly Case[], divisor: number): Case[] {
  return cases.filter((_, i) => isFull || i % divisor === 0);
}

/** The number of cases to run of `count` numbered ones: all in a full run, else one `divisor`-th. */
export function partOf(count: number, divisor: number): number {
  return isFull ? count : Math.ceil(count / divisor);
}

/**
 * How often a fault is repeated so that flakiness shows: `times` with `NDS_TEST_FULL=1`, a tenth of it in CI (`CI=1`),
 * a fiftieth otherwise; at least once.
 */
export function repeats(times: number): number {
  const isCi = Boolean(process.env['CI']) && !isAll;
  return Math.ceil(times / (isFull ? (isCi ? 10 : 1) : 50));
}
