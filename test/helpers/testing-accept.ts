/**
 * Typed access to the addon's accept rules and draws. Distributions are rows of masses, 0 for ids that are filtered
 * out.
 */
import { native } from '../../rank/native.ts';
import type { AcceptRule } from '../references/accept.ts';
import type { Sample } from './testing.ts';

/** Random streams, numbered as in accept.h. */
export const streams = { target: 0, draft: 1, accept: 2, residual: 3 } as const;

interface Address {
  readonly seed: bigint;
  readonly position: number;
  readonly sampleIndex: number;
  readonly round: number;
}

export interface AcceptDrafts extends Address {
  readonly rule: AcceptRule;
  readonly vocabSize: number;
  readonly drafts: Int32Array;
  /** `[K, vocabSize]` */
  readonly q: BigUint64Array;
  /** `[K + 1, vocabSize]` */
  readonly p: BigUint64Array;
  /** Position and round increase by one in each round. */
  readonly numRounds: number;
  /** Threads that share a round; default 1. */
  readonly numThreads?: number;
}

/** Context 0 is the empty text; `c * vocabSize + token + 1` is context c followed by a token. */
export interface Speculate {
  readonly rule: AcceptRule;
  readonly vocabSize: number;
  /** `[numContexts, vocabSize]`, like the next two. */
  readonly p: BigUint64Array;
  readonly drawnFrom: BigUint64Array;
  readonly judgedBy: BigUint64Array;
  readonly numDrafts: number;
  readonly numTokens: number;
  readonly numDraws: number;
  /** Seed of the first draw; each further draw adds 1. */
  readonly seed: bigint;
  /** Position of the first token. */
  readonly position: number;
  readonly draftStream: number;
  readonly keyedByRound: boolean;
  /** A draft with a smaller q is dropped, with all after it. */
  readonly dropBelow: number;
  /** A draft with a smaller q is kept and ends its round. */
  readonly stopBelow: number;
}

export interface TestingAccept {
  /** `[vocabSize]` */
  distribution(options: { isa: string } & Omit<Sample, 'firstId' | 'numDraws' | 'filtered'>): BigUint64Array;
  /** `[numDraws]`, at consecutive positions. */
  draw(options: { isa: string; masses: BigUint64Array; stream: number; numDraws: number; numThreads?: number } & Address): Int32Array;
  acceptDrafts(options: { isa: string } & AcceptDrafts): { numAccepted: Int32Array; tokens: Int32Array };
  /** `[numDraws, numTokens]` */
  speculate(options: { isa: string } & Speculate): Int32Array;
}

export const testingAccept = native().testing as unknown as TestingAccept;

/** Mass of the likeliest token. */
export const one = 2 ** 44;

/** Probabilities of masses, in float64. */
export function shares(masses: BigUint64Array): number[] {
  const total = masses.reduce((a, b) => a + b, 0n);
  return Array.from(masses, (mass) => Number(mass) / Number(total));
}

/** Concatenates rows. */
export function concat(rows: readonly BigUint64Array[]): BigUint64Array {
  return BigUint64Array.from(rows.flatMap((row) => [...row]));
}

/** Masses in proportion to weights; the largest is 2^44. */
export const massesOf = (weights: readonly number[]): BigUint64Array =>
  BigUint64Array.from(weights, (weight) => BigInt(Math.round((weight / Math.max(...weights)) * one)));

/** The rows of a matrix of masses, as probabilities. */
export function rowsOf(masses: BigUint64Array, vocabSize: number): number[][] {
  return Array.from({ length: masses.length / vocabSize }, (_, i) => shares(masses.slice(i * vocabSize, (i + 1) * vocabSize)));
}
