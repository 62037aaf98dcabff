/** The drafts that a sequence could have: from its own text or the draft model, whichever offers more. */
import type { Drafting, Sequence } from '../scheduler/sequence.ts';
import type { ResolvedSpeculativeConfig } from './config.ts';
import { SequenceSources } from './offers.ts';
import { type Acceptance, SharedAcceptance } from './policy/acceptance.ts';
import type { DraftCandidate } from './policy/draft-step.ts';
import type { StepCostEstimates } from './policy/step-costs.ts';
import { SuffixCache } from './proposers/suffix.ts';

/** Limits of the draft model. */
export interface DraftLimits {
  /** Max tokens of a sequence. */
  readonly maxModelLen: number;
  /** Max tokens of a pass. */
  readonly maxNumBatchedTokens: number;
}

/** A sequence of a step, with the drafts that it could have. */
export interface Candidate extends DraftCandidate {
  readonly sequence: Sequence;
  /** Drafts from its text; null where the draft model drafts. */
  readonly tokenIds: readonly number[] | null;
}

/** Expected accepted drafts that justify sitting out one step, until the tokens in flight are known. */
const worthWaiting = 0.5;
/** A sequence that only decodes. */
const nothing: Acceptance = { learns: false, survivals: () => [1], observe() {} };

/** Keeps the draft sources of each sequence until it ends. */
export class Candidates {
  readonly #config: ResolvedSpeculativeConfig;
  /** Null without a draft model. */
  readonly #draftLimits: DraftLimits | null;
  readonly #costs: StepCostEstimates;
  readonly #modelAcceptance: SharedAcceptance | null;
  readonly #suffixCache: SuffixCache;
  readonly #sources = new Map<Sequence, SequenceSources>();

  constructor(config: ResolvedSpeculativeConfig, draftLimits: DraftLimits | null, costs: StepCostEstimates) {
    this.#config = config;
    this.#draftLimits = draftLimits;
    this.#costs = costs;
    this.#modelAcceptance = draftLimits && new SharedAcceptance(config.numSpeculativeTokens);
    this.#suffixCache = new SuffixCache(config);
  }

  /** Max tokens of a draft-model pass; 0 without a draft model. */
  get maxDraftRows(): number {
    return this.#draftLimits?.maxNumBatchedTokens ?? 0;
  }

  /**
   * The better offer for a sequence, by its text or the draft model; `wait` = leave it out until tokens in flight are
   * known.
   * @param numSequences - decoding sequences of the step
   * @param numDraftRows - rows left in the draft model's first pass
   */
  of(sequence: Sequence, numSequences: number, numDraftRows: number): Candidate | 'wait' {
    const remainingTokens = Math.max(1, sequence.maxNumTokens - sequence.numTokens);
    const catchUpTokens = Math.max(1, sequence.draft.numUnseenTokens);
    const rest = { sequence, contextTokens: sequence.numTokens, remainingTokens, catchUpTokens };
    const most = Math.min(this.#config.numSpeculativeTokens, remainingTokens - 1);
    const sources = this.#sourcesOf(sequence);
    const { model } = sources;
    const byModel = this.mostByModel(sequence, most, numDraftRows);
    if (sources.readsText) {
      const { offer, acceptance } = sources.offer(sequence, Math.max(0, most));
      const { tokenIds } = offer;
      const ofModel = model === null ? 0 : this.#worthOfModel(model, byModel, numSequences);
      if (tokenIds.length > 0 && acceptance.expectedLength >= ofModel) {
        if (sequence.numPendingTokens === 0) {
          return { ...rest, acceptance, most: tokenIds.length, source: 'text', tokenIds };
        }
        if (acceptance.expectedLength >= worthWaiting) return 'wait';
      }
    }
    if (model === null) return { ...rest, acceptance: nothing, most: 0, source: 'text', tokenIds: null };
    return { ...rest, acceptance: model, most: byModel, source: 'draft_model', tokenIds: null };
  }

  /** Max drafts from the draft model: the last is not one of its inputs, so it may lie just past its context. */
  mostByModel(sequence: Sequence, most: number, numRows: number): number {
    if (this.#draftLimits === null) return 0;
    const { maxModelLen, maxNumBatchedTokens } = this.#draftLimits;
    // A catch-up longer than any pass takes a whole one.
    if (Math.min(sequence.draft.numUnseenTokens, maxNumBatchedTokens) > numRows) return 0;
    return Math.max(0, Math.min(most, maxModelLen - sequence.numTokens + 1));
  }

  /** Drafting of `numDrafts` by the draft model; none, only a catch-up, where that is too long for one pass. */
  byModel({ draft }: Sequence, numDrafts: number): Drafting {
    const isFarBehind = draft.numUnseenTokens > this.maxDraftRows;
    return { numDrafts: isFarBehind ? 0 : numDrafts, tokenIds: null, draftLen: Math.min(draft.numUnseenTokens, this.maxDraftRows) };
  }

  /** Fades the shared acceptance by one step. */
  stepped(): void {
    this.#modelAcceptance?.fade();
  }

  /** Drops a finished sequence; its output goes to the suffix cache. */
  ended(sequence: Sequence): void {
    if (!this.#sources.delete(sequence)) return;
    if (this.#config.methods.includes('suffix')) this.#suffixCache.add(sequence.tokenIds.slice(sequence.numPromptTokens));
  }

  /** Drops every sequence; none has finished. */
  lost(): void {
    this.#sources.clear();
  }

  /** Expected tokens per step from the draft model, less the cost of its passes in tokens. */
  #worthOfModel(acceptance: Acceptance, most: number, numSequences: number): number {
    const { target, draft } = this.#costs;
    const price = draft.rowSeconds(numSequences) / (this.#costs.hostSeconds(false) + target.rowSeconds(numSequences));
    const survivals = acceptance.survivals(most);
    let best = 0;
    let worth = 0;
    for (let i = 1; i <= most; i++) {
      worth += (survivals[i] as number) - price;
      best = Math.max(best, worth);
    }
    return best;
  }

  #sourcesOf(sequence: Sequence): SequenceSources {
    let sources = this.#sources.get(sequence);
    if (sources === undefined) {
      sources = new SequenceSources(this.#config, this.#modelAcceptance, this.#suffixCache);
      this.#sources.set(sequence, sources);
    }
    return sources;
  }
}
