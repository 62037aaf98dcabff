/** Decides what each step drafts for whom, from whichever source offers most. */
import type { Drafting, ScheduledSequence } from '../scheduled-batch.ts';
import type { Sequence } from '../sequence.ts';
import type { ResolvedSpeculativeConfig } from './config.ts';
import type { Drafter, DraftRoom } from './drafter.ts';
import { NgramProposer } from './ngram.ts';
import { noOffer, type Offer, type Proposer } from './proposer.ts';
import { SpeculationCounts, type SpeculationStats } from './speculation-counts.ts';
import { SuffixCache, SuffixProposer } from './suffix.ts';

/** What the draft model can do. */
export interface DraftLimits {
  /** Tokens of a sequence. */
  readonly maxModelLen: number;
  /** Tokens that it takes in at a time. */
  readonly maxNumBatchedTokens: number;
}

/** What is kept of a sequence. */
interface SequenceState {
  readonly proposers: readonly Proposer[];
}

/** Drafts that must be expected to stay before a sequence waits for its tokens to be known: one step's work of the batch. */
const worthWaiting = 1;

export class Speculator implements Drafter {
  readonly #config: ResolvedSpeculativeConfig;
  /** Null without a draft model. */
  readonly #draftLimits: DraftLimits | null;
  readonly #suffixCache: SuffixCache;
  readonly #states = new Map<Sequence, SequenceState>();
  readonly #totals = new SpeculationCounts();

  constructor(config: ResolvedSpeculativeConfig, draftLimits: DraftLimits | null) {
    this.#config = config;
    this.#draftLimits = draftLimits;
    this.#suffixCache = new SuffixCache(config);
  }

  /** Of all sequences so far. */
  get stats(): SpeculationStats {
    return this.#totals.snapshot;
  }

  choose(sequences: readonly Sequence[], room: DraftRoom): Map<Sequence, Drafting | 'wait'> {
    const chosen = new Map<Sequence, Drafting | 'wait'>();
    let most = Math.min(room.numTokens, room.numLogitRows);
    let numDraftRows = this.#draftLimits?.maxNumBatchedTokens ?? 0;
    for (const sequence of sequences) {
      const drafting = this.#draft(sequence, Math.min(most, this.#config.numSpeculativeTokens), numDraftRows);
      if (drafting === null) continue;
      chosen.set(sequence, drafting);
      if (drafting === 'wait') continue;
      most -= drafting.numDrafts;
      numDraftRows -= drafting.draftLen;
    }
    return chosen;
  }

  committed({ drafting }: ScheduledSequence, numAccepted: number): void {
    this.#totals.add(drafting?.numDrafts ?? 0, numAccepted);
  }

  ended(sequence: Sequence): void {
    if (!this.#states.delete(sequence)) return;
    if (this.#config.methods.includes('suffix')) this.#suffixCache.add(sequence.tokenIds.slice(sequence.numPromptTokens));
  }

  #draft(sequence: Sequence, room: number, numDraftRows: number): Drafting | 'wait' | null {
    // One token comes in any case, and the text ends at maxNumTokens.
    const most = Math.min(room, sequence.maxNumTokens - sequence.numTokens - 1);
    if (most <= 0) return null;
    const offer = this.#offerOf(sequence, most);
    if (offer.tokenIds.length > 0) {
      if (sequence.numPendingTokens === 0) return { numDrafts: offer.tokenIds.length, tokenIds: offer.tokenIds, draftLen: 0 };
      if (expectedLength(offer) >= worthWaiting) return 'wait';
    }
    return this.#draftLimits === null ? null : draftByModel(sequence, most, numDraftRows, this.#draftLimits);
  }

  /** The best that the text offers, as far as it is known. */
  #offerOf(sequence: Sequence, most: number): Offer {
    let best = noOffer;
    for (const proposer of this.#stateOf(sequence).proposers) {
      const offer = proposer.propose(sequence.tokenIds, most);
      if (expectedLength(offer) > expectedLength(best)) best = offer;
    }
    return best;
  }

  #stateOf(sequence: Sequence): SequenceState {
    let state = this.#states.get(sequence);
    if (state === undefined) {
      const { methods } = this.#config;
      const proposers = methods.flatMap((method): Proposer[] => {
        if (method === 'ngram') return [new NgramProposer(this.#config)];
        return method === 'suffix' ? [new SuffixProposer(this.#config, this.#suffixCache)] : [];
      });
      state = { proposers };
      this.#states.set(sequence, state);
    }
    return state;
  }
}

/** Drafts that are expected to stay. */
function expectedLength({ confidences }: Offer): number {
  let survival = 1;
  let length = 0;
  for (const confidence of confidences) {
    survival *= confidence;
    length += survival;
  }
  return length;
}

/** What the draft model does: as many drafts as there may be, or, while it is too far behind, nothing but catch up. */
function draftByModel(sequence: Sequence, most: number, numRows: number, limits: DraftLimits): Drafting | null {
  const { numUnseenTokens } = sequence.draft;
  // The last draft is not taken in.
  const numDrafts = Math.min(most, limits.maxModelLen - sequence.numTokens + 1);
  if (numDrafts <= 0 || numRows <= 0) return null;
  if (numUnseenTokens > numRows) return { numDrafts: 0, tokenIds: null, draftLen: numRows };
  return { numDrafts, tokenIds: null, draftLen: numUnseenTokens };
}
