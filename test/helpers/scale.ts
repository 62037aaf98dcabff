/** How much of a heavy test a run does. */

/**
 * Whether everything is run, as with `NDS_TEST_FULL=1`; else each heavy file runs a part of its cases, the same each time, which takes at
 * most a minute on two quiet cores.
 */
export const isFull = process.env['NDS_TEST_FULL'] === '1';

/** All of the cases in a full run, else every `divisor`-th, from the first on. */
export function part<Case>(cases: readonly Case[], divisor: number): Case[] {
  return cases.filter((_, i) => isFull || i % divisor === 0);
}

/** How many of `count` cases that are told apart by their number alone are run: all, or the first of `divisor` equal shares. */
export function partOf(count: number, divisor: number): number {
  return isFull ? count : Math.ceil(count / divisor);
}
