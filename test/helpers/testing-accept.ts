/** The addon's accept rules and draws on plain arrays, typed. Distributions are rows of masses, 0 where an id is left out. */
import { native } from '../../rank/native.ts';
import type { AcceptRule } from '../references/accept.ts';
import type { Sample } from './testing.ts';

/** Streams of random numbers, as accept.h numbers them. */
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
  /** Position and round are one higher each time. */
  readonly numRounds: number;
}

/** Context 0 is before the first token; `c * vocabSize + token + 1` is context c and a token. */
export interface Speculate {
  readonly rule: AcceptRule;
  readonly vocabSize: number;
  /** `[contexts, vocabSize]`, like the next two. */
  readonly p: BigUint64Array;
  readonly drawnFrom: BigUint64Array;
  readonly judgedBy: BigUint64Array;
  readonly numDrafts: number;
  readonly numTokens: number;
  readonly numDraws: number;
  /** Of the first draw; the others follow. */
  readonly seed: bigint;
  /** Of the first token. */
  readonly position: number;
  readonly draftStream: number;
  readonly keyedByRound: boolean;
  /** A draft of a smaller q is left out, with all after it. */
  readonly dropBelow: number;
  /** A draft of a smaller q is the last of its round. */
  readonly stopBelow: number;
}

export interface TestingAccept {
  /** `[vocabSize]` */
  distribution(options: { isa: string } & Omit<Sample, 'firstId' | 'numDraws' | 'filtered'>): BigUint64Array;
  /** `[numDraws]`, at one position after the other. */
  draw(options: { isa: string; masses: BigUint64Array; stream: number; numDraws: number } & Address): Int32Array;
  acceptDrafts(options: { isa: string } & AcceptDrafts): { numAccepted: Int32Array; tokens: Int32Array };
  /** `[numDraws, numTokens]` */
  speculate(options: { isa: string } & Speculate): Int32Array;
}

export const testingAccept = native().testing as unknown as TestingAccept;

/** The mass of the likeliest token. */
export const one = 2 ** 44;

/** Shares of the whole in float64. */
export function shares(masses: BigUint64Array): number[] {
  const total = masses.reduce((a, b) => a + b, 0n);
  return Array.from(masses, (mass) => Number(mass) / Number(total));
}

/** Rows after each other. */
export function concat(rows: readonly BigUint64Array[]): BigUint64Array {
  return BigUint64Array.from(rows.flatMap((row) => [...row]));
}

/** Masses of weights, the largest of them 2^44. */
export const massesOf = (weights: readonly number[]): BigUint64Array =>
  BigUint64Array.from(weights, (weight) => BigInt(Math.round((weight / Math.max(...weights)) * one)));

/** Of a matrix, the rows as shares. */
export function rowsOf(masses: BigUint64Array, vocabSize: number): number[][] {
  return Array.from({ length: masses.length / vocabSize }, (_, i) => shares(masses.slice(i * vocabSize, (i + 1) * vocabSize)));
}
