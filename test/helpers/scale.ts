/** How much of a heavy test a run does. */
const extent = process.env['NDS_TEST_FULL'] ?? '';

/**
 * Whether heavy files run all of their cases: `NDS_TEST_FULL=1`, as CI sets it. Else each runs a part, the same each time, which
 * takes at most a minute on two quiet cores.
 */
export const isFull = extent === '1' || extent === 'all';
/** Whether whole models run on the emulated CUDA device for all cases, too: `NDS_TEST_FULL=all`, tens of minutes. */
export const isAll = extent === 'all';

/** All of the cases in a full run, else every `divisor`-th, from the first on. */
export function part<Case>(cases: readonly Case[], divisor: number): Case[] {
  return cases.filter((_, i) => isFull || i % divisor === 0);
}

/** How many of `count` cases that are told apart by their number alone are run: all, or the first of `divisor` equal shares. */
export function partOf(count: number, divisor: number): number {
  return isFull ? count : Math.ceil(count / divisor);
}
