/** One sample of a request as the scheduler sees it: its tokens, how many of them are cached, and where. */
import type { BlockHolder } from '../kv/block-manager.ts';
import { extendBlockNames } from '../kv/block-names.ts';
import type { EngineRequest, FinishReason } from './request.ts';

/** What one step drafts for a sequence. */
export interface Drafting {
  readonly numDrafts: number;
  /** `[numDrafts]`; null = those that the draft model proposes. */
  readonly tokenIds: readonly number[] | null;
  /** Most tokens that the draft model takes in, of those that it has not seen; 0 = it has no part in this. */
  readonly draftLen: number;
}

/** Why a sequence ends, and with which of the caller's stop tokens. */
export interface SequenceEnd {
  readonly finishReason: FinishReason;
  readonly stopTokenId: number | null;
}

/** What the draft model keeps of a sequence, in blocks of its own. */
export interface DraftState extends BlockHolder {
  /** Tokens that it has not seen, at most, once every plan built has run: how many drafts stayed may not be known yet. */
  numUnseenTokens: number;
  /** Whether these include all drafts of the text that are under way: no pass of the draft model was planned after them. */
  countsOffers: boolean;
}

/**
 * Counts run ahead of results: they describe the state after every plan that was built, so that the next plan can be
 * built while the last one runs. A plan with drafts counts as if all of them stayed; its result takes back those that did
 * not. Invariant: the newest token is never cached, so the tokens to compute are always those from `numCachedTokens` on.
 */
export class Sequence implements BlockHolder {
  readonly request: EngineRequest;
  /** Which of the request's `n` samples this is. */
  readonly index: number;
  /** Sample 0 of the same request, whose prompt KV this one shares; null for sample 0 itself. */
  readonly leader: Sequence | null;
  /** Place in the order of arrival. */
  readonly arrival: number;
  /** Prompt and generated tokens, as far as their values are known here. */
  readonly tokenIds: number[];
  /** Most tokens that prompt and output may have together. */
  readonly maxNumTokens: number;
  /** Tokens that plans in flight will add, at most; native knows their values first. */
  numPendingTokens = 0;
  /** Tokens whose KV is cached once every plan built has run. */
  numCachedTokens = 0;
  /** Tokens whose KV is cached once every plan built before the step being scheduled has run. */
  numStoredTokens = 0;
  /** Prompt tokens that were found cached when the sequence was first let in; null before that. */
  numHitTokens: number | null = null;
  /** Prompt rows whose logits or log-probabilities have been handed back. */
  numReturnedRows = 0;
  /** Physical block of each logical block. */
  readonly blockTable: number[] = [];
  /** Names of the full blocks of known tokens; see `blockNames`. */
  readonly #blockNames: string[] = [];
  /** Blocks of the table that were offered to the prefix cache. */
  numNamedBlocks = 0;
  readonly draft: DraftState;
  /** Native state of this sequence; -1 while it waits. */
  slot = -1;
  /** Whether a plan has loaded the slot with this sequence. */
  isAdmitted = false;
  /** Whether the slot holds the newest token, so that a plan can say "newest" in place of its id. */
  isNewestInSlot = false;
  /** Finished or aborted: results still in flight for it are dropped. */
  isDone = false;

  constructor(request: EngineRequest, maxModelLen: number, arrival: number, index = 0, leader: Sequence | null = null) {
    this.request = request;
    this.arrival = arrival;
    this.index = index;
    this.leader = leader;
    this.tokenIds = [...request.promptTokenIds];
    const numPromptTokens = this.tokenIds.length;
    this.draft = { name: `${this.name} (draft)`, blockTable: [], numNamedBlocks: 0, numUnseenTokens: numPromptTokens, countsOffers: false };
    this.maxNumTokens = request.type === 'generate' ? Math.min(numPromptTokens + request.maxTokens, maxModelLen) : numPromptTokens;
  }

  /** `3`, or `3.1` for sample 1 of several. */
  get name(): string {
    const { request, index } = this;
    return request.type === 'generate' && request.n > 1 ? `${request.requestId}.${index}` : String(request.requestId);
  }

  get numTokens(): number {
    return this.tokenIds.length + this.numPendingTokens;
  }

  get numPromptTokens(): number {
    return this.request.promptTokenIds.length;
  }

  /** Tokens that the next steps must compute: 1 for a decode, more for what is left of a prefill, 0 when nothing is wanted. */
  get numTokensToCompute(): number {
    const wantsMore = this.request.type === 'logits' || this.numTokens < this.maxNumTokens;
    return wantsMore ? this.numTokens - this.numCachedTokens : 0;
  }

  /** Whether the next step takes one token: the newest, which the slot holds. */
  get isDecoding(): boolean {
    return this.isNewestInSlot && this.numTokensToCompute === 1;
  }

  /** Prompt rows `[0, n)` of which something is handed back: all logits, or the log-probability of the token after each. */
  get numRowsToReturn(): number {
    if (this.request.type === 'logits') return this.numPromptTokens;
    return this.request.params.numPromptLogprobs !== null && this.leader === null ? this.numPromptTokens - 1 : 0;
  }

  /** Names of the full blocks of known tokens, for the prefix cache. */
  blockNames(blockSize: number): readonly string[] {
    extendBlockNames(this.#blockNames, this.tokenIds, blockSize);
    return this.#blockNames;
  }

  /** Notes a step that runs `numTokens` of its tokens and, if it samples, adds one token and at most `numDrafts` more. */
  advance(numTokens: number, samples: boolean, drafting: Drafting | null): void {
    const { draft } = this;
    const numDrafts = drafting?.numDrafts ?? 0;
    this.isAdmitted = true;
    this.numCachedTokens += numTokens;
    this.isNewestInSlot = samples;
    if (samples) this.numPendingTokens += 1 + numDrafts;
    draft.numUnseenTokens = Math.max(0, draft.numUnseenTokens - (drafting?.draftLen ?? 0));
    if (drafting !== null) draft.countsOffers = drafting.tokenIds !== null;
    // What it drafts it has seen, but for the last draft and the token after it.
    if (samples) draft.numUnseenTokens += drafting !== null && drafting.tokenIds === null ? Math.min(numDrafts, 1) + 1 : 1 + numDrafts;
  }

  /** Takes back drafts that did not stay. */
  rollBack(numRejected: number, drafting: Drafting): void {
    this.numPendingTokens -= numRejected;
    // A sequence that gave way meanwhile has nothing cached.
    if (this.isAdmitted) this.numCachedTokens -= numRejected;
    // The draft model has not seen them. Where it has caught up since, with fewer tokens than were planned, the bound holds as it is.
    if (drafting.tokenIds !== null && this.draft.countsOffers) this.draft.numUnseenTokens -= numRejected;
  }

  /** Appends the tokens that a step produced, up to one that ends the sequence; says how many those are, and whether and why it ends. */
  appendAll(tokenIds: readonly number[]): { readonly numTokens: number; readonly end: SequenceEnd | null } {
    for (let i = 0; i < tokenIds.length; i++) {
      const end = this.#append(tokenIds[i] as number);
      if (end !== null) return { numTokens: i + 1, end };
    }
    return { numTokens: tokenIds.length, end: null };
  }

  #append(tokenId: number): SequenceEnd | null {
    this.tokenIds.push(tokenId);
    this.numPendingTokens--;
    if (this.request.type !== 'generate') return null;
    if (this.request.eosTokenIds.includes(tokenId)) return { finishReason: 'stop', stopTokenId: null };
    if (this.request.stopTokenIds.includes(tokenId)) return { finishReason: 'stop', stopTokenId: tokenId };
    return this.tokenIds.length >= this.maxNumTokens ? { finishReason: 'length', stopTokenId: null } : null;
  }

  /** Forgets everything computed: the blocks and the slot are another's now. */
  reset(): void {
    this.numCachedTokens = 0;
    this.numStoredTokens = 0;
    this.slot = -1;
    this.isAdmitted = false;
    this.isNewestInSlot = false;
    this.draft.numUnseenTokens = this.numTokens;
    this.draft.countsOffers = true;
  }
}

/** Puts a sequence where it belongs. */
export function enqueue(queue: Sequence[], sequence: Sequence): void {
  const after = queue.findLastIndex((other) => comesBefore(other, sequence));
  queue.splice(after + 1, 0, sequence);
}

/** Takes a sequence out, if it is there. */
export function remove(queue: Sequence[], sequence: Sequence): void {
  const index = queue.indexOf(sequence);
  if (index >= 0) queue.splice(index, 1);
}

function comesBefore(a: Sequence, b: Sequence): boolean {
  const byPriority = a.request.priority - b.request.priority;
  return byPriority < 0 || (byPriority === 0 && a.arrival < b.arrival);
}
