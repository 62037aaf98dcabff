/** Drafts by suffix decoding: what most often followed the text's longest end, here and in earlier outputs. */
import { NdsError } from '../../../protocol/errors.ts';
import { noOffer, type Offer, type Proposer } from './proposer.ts';
import { type Draft, type Match, SuffixTree } from './suffix-tree.ts';

/** vLLM's options of the method `suffix`, with its names and defaults. */
export interface SuffixOptions {
  /** Max tokens of a counted run, at least 2. Drafts may continue past it. Default 24. */
  readonly suffixDecodingMaxTreeDepth: number;
  /** Max drafts per token of the match that they rest on. Default 1. */
  readonly suffixDecodingMaxSpecFactor: number;
  /** Min probability that all drafts are right, by occurrence counts, in [0, 1]. Default 0.1. */
  readonly suffixDecodingMinTokenProb: number;
  /** Max earlier outputs to draft from; 0 = none. Default 10000. */
  readonly suffixDecodingMaxCachedRequests: number;
}

/** vLLM's defaults. */
export const suffixDefaults: SuffixOptions = {
  suffixDecodingMaxTreeDepth: 24,
  suffixDecodingMaxSpecFactor: 1,
  suffixDecodingMinTokenProb: 0.1,
  suffixDecodingMaxCachedRequests: 10_000,
};

/** Outputs of finished requests, shared by all proposers of a model; the oldest are evicted first. */
export class SuffixCache {
  readonly #tree: SuffixTree;
  readonly #maxTexts: number;
  readonly #maxNodes: number;
  readonly #maxTextLength: number;

  /**
   * @param maxNodes - max nodes, at 40 bytes each. A token takes two to six, at worst `suffixDecodingMaxTreeDepth`
   * @throws NdsError ERR_USAGE for fewer than two nodes a level of the tree
   */
  constructor(options: SuffixOptions, maxNodes = 2 ** 20 - 1) {
    if (!(maxNodes >= 2 * options.suffixDecodingMaxTreeDepth)) {
      throw new NdsError('ERR_USAGE', `Expected maxNodes of at least twice suffixDecodingMaxTreeDepth but received ${maxNodes}`);
    }
    this.#tree = new SuffixTree(options.suffixDecodingMaxTreeDepth, maxNodes);
    this.#maxTexts = options.suffixDecodingMaxCachedRequests;
    this.#maxNodes = maxNodes;
    this.#maxTextLength = Math.floor(maxNodes / options.suffixDecodingMaxTreeDepth) - 1;
  }

  get numRequests(): number {
    return this.#tree.numTexts;
  }

  get numNodes(): number {
    return this.#tree.numNodes;
  }

  /** Adds a finished output, or the end of one too long for the cache. Evicts the oldest until it surely fits. */
  add(tokenIds: readonly number[]): void {
    if (this.#maxTexts === 0 || tokenIds.length === 0) return;
    const start = Math.max(0, tokenIds.length - this.#maxTextLength);
    const mostNewNodes = (tokenIds.length - start + 1) * (this.#tree.maxMatchLength + 1);
    while (this.#tree.numTexts >= this.#maxTexts || (this.#tree.numTexts > 0 && this.#tree.numNodes + mostNewNodes > this.#maxNodes)) {
      this.#tree.forgetOldest();
    }
    for (let i = start; i < tokenIds.length; i++) this.#tree.append(tokenIds[i] ?? 0);
    this.#tree.endText();
  }

  /** The likeliest continuation of a text's longest end, `null` when its last token never came. */
  draft(textEnd: readonly number[], most: number, options: SuffixOptions): Draft | null {
    return draftFrom(this.#tree, this.#tree.match(textEnd), most, options);
  }
}

/**
 * SuffixDecoding (Oliaro et al. 2024; vLLM's method `suffix`): one tree over this sequence's prompt and output, one
 * over earlier outputs; the draft of more expected accepted tokens is offered.
 */
export class SuffixProposer implements Proposer {
  readonly #options: SuffixOptions;
  readonly #tree: SuffixTree;
  readonly #cache: SuffixCache | null;
  #numRead = 0;

  constructor(options: SuffixOptions = suffixDefaults, cache: SuffixCache | null = null) {
    this.#options = options;
    this.#tree = new SuffixTree(options.suffixDecodingMaxTreeDepth);
    this.#cache = cache;
  }

  /** Lookups in the sequence's own tree so far, the measure of work. */
  get numLookups(): number {
    return this.#tree.numLookups;
  }

  propose(tokenIds: readonly number[], most: number): Offer {
    for (; this.#numRead < tokenIds.length; this.#numRead++) this.#tree.append(tokenIds[this.#numRead] ?? 0);
    if (most <= 0) return noOffer;
    const own = draftFrom(this.#tree, this.#tree.matchOpenText(), most, this.#options);
    const cached = this.#cache?.draft(tokenIds.slice(-this.#tree.maxMatchLength), most, this.#options) ?? null;
    if (own === null || cached === null) return own ?? cached ?? noOffer;
    return cached.expected > own.expected ? cached : own;
  }
}

function draftFrom(tree: SuffixTree, match: Match | null, most: number, options: SuffixOptions): Draft | null {
  if (match === null) return null;
  const limit = Math.min(most, Math.floor(match.length * options.suffixDecodingMaxSpecFactor));
  return tree.draft(match, limit, options.suffixDecodingMinTokenProb);
}
