/** One sample of a request, as scheduled: its tokens, how many are cached, and where. */
import type { BlockHolder } from '../kv/block-manager.ts';
import { extendBlockNames } from '../kv/block-names.ts';
import type { EngineRequest, FinishReason, ReportedSample } from './request.ts';

/** One step's drafts for a sequence. */
export interface Drafting {
  readonly numDrafts: number;
  /** `[numDrafts]`; null = proposed by the draft model. */
  readonly tokenIds: readonly number[] | null;
  /** Max unseen tokens that the draft model reads; 0 = it does not run. */
  readonly draftLen: number;
}

const nothingReported: ReportedSample = { outputTokenIds: [], numCachedTokens: 0 };

/** Why a sequence ends, and at which of the caller's stop tokens. */
export interface SequenceEnd {
  readonly finishReason: FinishReason;
  readonly stopTokenId: number | null;
}

/** The draft model's state of a sequence, in blocks of its own cache. */
export interface DraftState extends BlockHolder {
  /** Max tokens it has not read once every built plan has run; a bound, since acceptance may be unknown yet. */
  numUnseenTokens: number;
  /** Whether the bound includes all text-lookup drafts in flight: no draft-model pass was planned after them. */
  countsOffers: boolean;
}

/**
 * Counts describe the state after every built plan, so that the next plan can be built while the last one runs. Drafts
 * count as accepted until the result rolls back the rejected ones. Invariant: the newest token is never cached, so the
 * tokens to compute are always those from `numCachedTokens` on.
 */
export class Sequence implements BlockHolder {
  readonly request: EngineRequest;
  /** Which of the request's `n` samples this is. */
  readonly index: number;
  /** First unfinished sample of the same request, whose prompt KV this one shares; null for that sample itself. */
  readonly leader: Sequence | null;
  /** Place in the order of arrival. */
  readonly arrival: number;
  /** Prompt and generated tokens whose values are known here. */
  readonly tokenIds: number[];
  /** Max tokens of prompt and output together. */
  readonly maxNumTokens: number;
  /** Max tokens that plans in flight will add; native knows their values first. */
  numPendingTokens = 0;
  /** Tokens whose KV is cached once every built plan has run. */
  numCachedTokens = 0;
  /** The same before the step being scheduled. */
  numStoredTokens = 0;
  /** Prompt tokens found cached at first admission; null before that. */
  numHitTokens: number | null = null;
  /** First prompt row not returned yet: its logits, hidden state or log-probability. */
  numReturnedRows: number;
  /** Physical block of each logical block. */
  readonly blockTable: number[] = [];
  readonly #blockNames: string[] = [];
  /** Blocks of the table that were named for the prefix cache. */
  numNamedBlocks = 0;
  readonly draft: DraftState;
  /** Index of its native state; -1 while waiting. */
  slot = -1;
  /** Whether a plan has loaded the slot with this sequence. */
  isAdmitted = false;
  /** Whether the slot holds the newest token, so that a plan can say "newest" in place of its id. */
  isNewestInSlot = false;
  /** Finished or aborted: results still in flight for it are dropped. */
  isDone = false;

  constructor(request: EngineRequest, longest: number, arrival: number, index = 0, leader: Sequence | null = null) {
    this.request = request;
    this.arrival = arrival;
    this.index = index;
    this.leader = leader;
    const { outputTokenIds, numCachedTokens } = request.reported?.samples[index] ?? nothingReported;
    this.tokenIds = [...request.promptTokenIds, ...outputTokenIds];
    // A sample with tokens was admitted before.
    if (outputTokenIds.length > 0) this.numHitTokens = numCachedTokens;
    this.numReturnedRows = (request.type === 'hidden' ? request.firstRow : 0) + (request.reported?.numRows ?? 0);
    const numUnseenTokens = this.tokenIds.length;
    this.draft = { name: `${this.name} (draft)`, blockTable: [], numNamedBlocks: 0, numUnseenTokens, countsOffers: false };
    const { numPromptTokens } = this;
    this.maxNumTokens = request.type === 'generate' ? Math.min(numPromptTokens + request.maxTokens, longest) : numPromptTokens;
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

  /** Tokens left to compute: 1 for a decode, more for an unfinished prefill, 0 when none is wanted. */
  get numTokensToCompute(): number {
    const wantsMore = this.request.type !== 'generate' || this.numTokens < this.maxNumTokens;
    return wantsMore ? this.numTokens - this.numCachedTokens : 0;
  }

  /** Whether the one token left to compute is the newest, held by the slot. */
  get isDecoding(): boolean {
    return this.isNewestInSlot && this.numTokensToCompute === 1;
  }

  /** End of the prompt rows to return: logits, hidden states, or the log-probability of the token after each. */
  get numRowsToReturn(): number {
    if (this.request.type !== 'generate') return this.numPromptTokens;
    return this.request.params.numPromptLogprobs !== null && this.leader === null ? this.numPromptTokens - 1 : 0;
  }

  /** Names of the full blocks of known tokens, for the prefix cache. */
  blockNames(blockSize: number): readonly string[] {
    extendBlockNames(this.#blockNames, this.tokenIds, blockSize);
    return this.#blockNames;
  }

  /** Accounts for a step of `numTokens` tokens; one that samples adds 1 token and at most `numDrafts` more. */
  advance(numTokens: number, samples: boolean, drafting: Drafting | null): void {
    const { draft } = this;
    const numDrafts = drafting?.numDrafts ?? 0;
    this.isAdmitted = true;
    this.numCachedTokens += numTokens;
    this.isNewestInSlot = samples;
    if (samples) this.numPendingTokens += 1 + numDrafts;
    draft.numUnseenTokens = Math.max(0, draft.numUnseenTokens - (drafting?.draftLen ?? 0));
    if (drafting !== null) draft.countsOffers = drafting.tokenIds !== null;
    // The draft model has read its own drafts but the last, and not the token after them.
    if (samples) draft.numUnseenTokens += drafting !== null && drafting.tokenIds === null ? Math.min(numDrafts, 1) + 1 : 1 + numDrafts;
  }

  /** Takes back rejected drafts. */
  rollBack(numRejected: number, drafting: Drafting): void {
    this.numPendingTokens -= numRejected;
    // Preempted meanwhile: nothing is cached.
    if (this.isAdmitted) this.numCachedTokens -= numRejected;
    // The bound counted them as unread. If the draft model has caught up since, the bound holds unchanged.
    if (drafting.tokenIds !== null && this.draft.countsOffers) this.draft.numUnseenTokens -= numRejected;
  }

  /** Appends a step's tokens up to the first that ends the sequence; returns how many, and the end or null. */
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

  /** Resets to nothing computed, after preemption. */
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

/** Inserts a sequence in serving order. */
export function enqueue(queue: Sequence[], sequence: Sequence): void {
  const after = queue.findLastIndex((other) => comesBefore(other, sequence));
  queue.splice(after + 1, 0, sequence);
}

/** Removes a sequence, if present. */
export function remove(queue: Sequence[], sequence: Sequence): void {
  const index = queue.indexOf(sequence);
  if (index >= 0) queue.splice(index, 1);
}

function comesBefore(a: Sequence, b: Sequence): boolean {
  const byPriority = a.request.priority - b.request.priority;
  return byPriority < 0 || (byPriority === 0 && a.arrival < b.arrival);
}
