/** What one answer took: tokens, times and drafts. */
import type { FinishReason, StreamChunk } from '../../rank/index.ts';
import { SpeculationCounts, type SpeculationStats } from '../../rank/speculative/counts.ts';

export class AnswerMeter {
  readonly #now: () => number;
  readonly #begin: number;
  readonly #counts = new SpeculationCounts();
  #hasCounts = false;
  #firstAt = 0;
  #lastAt = 0;
  #numFirst = 0;
  #numTokens = 0;
  #numCachedTokens = 0;
  #finishReason: FinishReason | null = null;

  /** @param now - milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#begin = now();
  }

  push({
    tokenIds,
    drafted,
    finishReason,
    numCachedTokens,
  }: Pick<StreamChunk, 'tokenIds' | 'drafted' | 'finishReason' | 'numCachedTokens'>) {
    this.#lastAt = this.#now();
    if (this.#numTokens === 0) [this.#firstAt, this.#numFirst] = [this.#lastAt, tokenIds.length];
    this.#numTokens += tokenIds.length;
    this.#numCachedTokens = numCachedTokens;
    this.#finishReason = finishReason;
    if (drafted === null) return;
    this.#hasCounts = true;
    this.#counts.add(drafted.numDrafts, drafted.numAccepted);
  }

  get numTokens(): number {
    return this.#numTokens;
  }

  /** Tokens of the prompt that the prefix cache had. */
  get numCachedTokens(): number {
    return this.#numCachedTokens;
  }

  /** Null for an answer that was stopped. */
  get finishReason(): FinishReason | null {
    return this.#finishReason;
  }

  get firstTokenMs(): number {
    return this.#firstAt - this.#begin;
  }

  /** From the first chunk to the last. */
  get decodeMs(): number {
    return this.#lastAt - this.#firstAt;
  }

  /** Tokens of `decodeMs`. */
  get numDecoded(): number {
    return this.#numTokens - this.#numFirst;
  }

  /** Null without speculation. */
  get speculation(): SpeculationStats | null {
    return this.#hasCounts ? this.#counts.snapshot : null;
  }
}
