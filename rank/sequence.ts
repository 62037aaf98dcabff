/** A request as the scheduler sees it: its tokens, how many of them are cached, and where. */
import type { EngineRequest, FinishReason } from './engine-messages.ts';

/**
 * Counts run ahead of results: they describe the state after every plan that was built, so that the next plan can be
 * built while the last one runs. Invariant: the newest token is never cached, so the tokens to compute are always
 * those from `numCachedTokens` on.
 */
export class Sequence {
  readonly request: EngineRequest;
  /** Prompt and generated tokens, as far as their values are known here. */
  readonly tokenIds: number[];
  /** Most tokens that prompt and output may have together. */
  readonly maxNumTokens: number;
  /** Tokens that plans in flight will add; native knows their values first. */
  numPendingTokens = 0;
  /** Tokens whose KV is cached once every plan built has run. */
  numCachedTokens = 0;
  /** Prompt rows whose logits have been handed back. */
  numReturnedRows = 0;
  /** Physical block of each logical block. */
  readonly blockTable: number[] = [];
  /** Native state of this sequence; -1 while it waits. */
  slot = -1;
  /** Whether a plan has loaded the slot with this sequence. */
  isAdmitted = false;
  /** Whether the slot holds the newest token, so that a plan can say "newest" in place of its id. */
  isNewestInSlot = false;
  /** Finished or aborted: results still in flight for it are dropped. */
  isDone = false;

  constructor(request: EngineRequest, maxModelLen: number) {
    this.request = request;
    this.tokenIds = [...request.promptTokenIds];
    const numPromptTokens = this.tokenIds.length;
    this.maxNumTokens = request.type === 'generate' ? Math.min(numPromptTokens + request.maxTokens, maxModelLen) : numPromptTokens;
  }

  get numTokens(): number {
    return this.tokenIds.length + this.numPendingTokens;
  }

  /** Tokens that the next steps must compute: 1 for a decode, more for what is left of a prefill, 0 when nothing is wanted. */
  get numTokensToCompute(): number {
    const wantsMore = this.request.type === 'logits' || this.numTokens < this.maxNumTokens;
    return wantsMore ? this.numTokens - this.numCachedTokens : 0;
  }

  /** Appends a token that a step produced; says whether and why the sequence ends with it. */
  append(tokenId: number): FinishReason | null {
    this.tokenIds.push(tokenId);
    this.numPendingTokens--;
    if (this.request.type === 'generate' && this.request.eosTokenIds.includes(tokenId)) return 'stop';
    return this.tokenIds.length >= this.maxNumTokens ? 'length' : null;
  }

  /** Forgets everything computed: the blocks and the slot are another's now. */
  reset(): void {
    this.numCachedTokens = 0;
    this.slot = -1;
    this.isAdmitted = false;
    this.isNewestInSlot = false;
  }
}
