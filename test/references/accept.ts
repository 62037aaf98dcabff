/**
 * The accept rules in plain TypeScript, in float64, as published: Leviathan et al. 2023 (algorithm 1) and Sun et al.
 * 2024 (algorithm 2). Randomness is passed in as coins.
 */
import { at } from '../helpers/testing.ts';

export type AcceptRule = 'standard' | 'block';
export const acceptRules: readonly AcceptRule[] = ['standard', 'block'];

/** Probabilities over the vocabulary. */
export type Probabilities = readonly number[];

/** A round of K drafts. `q[j]` and `p[j]` are the draft's and the target's distributions after j of them. */
export interface Round {
  readonly drafts: readonly number[];
  /** `[K]` */
  readonly q: readonly Probabilities[];
  /** `[K + 1]` */
  readonly p: readonly Probabilities[];
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** max(0, share · p − q) for every token. */
function excess(p: Probabilities, q: Probabilities, share: number): number[] {
  return p.map((value, x) => Math.max(0, share * value - at(q, x)));
}

function row<T>(rows: readonly T[], i: number): T {
  const found = rows[i];
  if (found === undefined) throw new RangeError(`Expected a row below ${rows.length} but received ${i}`);
  return found;
}

/** `[K + 1]` p_i of block verification: p_0 = 1, then the running product of the ratios, clipped at 1. */
function runningProducts({ drafts, q, p }: Round): number[] {
  const products = [1];
  drafts.forEach((x, i) => {
    products.push(Math.min(1, (at(products, i) * at(row(p, i), x)) / at(row(q, i), x)));
  });
  return products;
}

/** `[K]` limit of each draft's coin: the ratio for `standard`, h_1 … h_K for `block`. */
export function limits(rule: AcceptRule, round: Round): number[] {
  const { drafts, q, p } = round;
  if (rule === 'standard') return drafts.map((x, i) => Math.min(1, at(row(p, i), x) / at(row(q, i), x)));
  const products = runningProducts(round);
  return drafts.map((_, before) => {
    const i = before + 1;
    const product = at(products, i);
    if (i === drafts.length) return product;
    const left = sum(excess(row(p, i), row(q, i), product));
    // With p = q and no loss so far, the next prefix is as certain as this one.
    return left === 0 && product === 1 ? 1 : left / (left + (1 - product));
  });
}

/**
 * Number of accepted drafts: those before the first coin at or above its limit for `standard`, those up to the last
 * coin below its limit for `block`.
 */
export function numAccepted(rule: AcceptRule, isBelow: readonly boolean[]): number {
  if (rule === 'block') return isBelow.lastIndexOf(true) + 1;
  const rejected = isBelow.indexOf(false);
  return rejected === -1 ? isBelow.length : rejected;
}

/** Distribution of the token after `accepted` drafts. */
export function nextToken(rule: AcceptRule, round: Round, accepted: number): number[] {
  const p = row(round.p, accepted);
  if (accepted === round.drafts.length) return [...p];
  const share = rule === 'block' ? at(runningProducts(round), accepted) : 1;
  const weights = excess(p, row(round.q, accepted), share);
  const total = sum(weights);
  return weights.map((weight) => weight / total);
}
