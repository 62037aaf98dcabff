/** Types of `stats()`: totals, histograms, and the current requests and blocks. */
import type { SpeculationStats } from '../speculative/counts.ts';
import type { HistogramSnapshot } from './histogram.ts';

/** Running totals since the model was loaded. */
export interface MetricsSnapshot {
  readonly numSteps: number;
  /** Prompt tokens computed, recomputed ones included. */
  readonly numPromptTokens: number;
  /** Tokens generated, those past the end of a text excluded. */
  readonly numTokens: number;
  readonly numRequests: number;
  /** Requests that ran to completion. */
  readonly numFinishedRequests: number;
  /** Requests that their callers aborted. */
  readonly numAbortedRequests: number;
  readonly maxNumBlocksInUse: number;
  /** Times that the other ranks were lost and started anew. */
  readonly numRestarts: number;
  /** Seconds from such a loss, or the failed step that told of it, until steps ran again. */
  readonly lostSeconds: number;
  /** Seconds that rank 0's executor ran steps. */
  readonly executeSeconds: number;
  /** Seconds of `executeSeconds` spent waiting for other ranks. */
  readonly waitSeconds: number;
  /** Bytes that rank 0 published to the others: partial sums, embedding rows, candidates, logits. */
  readonly exchangedBytes: number;
  /** Bytes of partial sums alone. */
  readonly allReduceBytes: number;
  readonly histograms: MetricsHistograms;
}

/** All in seconds; request times are per sample. */
export interface MetricsHistograms {
  /** From arrival to scheduling of the first step. */
  readonly queue: HistogramSnapshot;
  /** From there to the first token. */
  readonly prefill: HistogramSnapshot;
  /** From the first token to the last. */
  readonly decode: HistogramSnapshot;
  /** From arrival to the first token. */
  readonly timeToFirstToken: HistogramSnapshot;
  /** From one step's tokens to the next step's. */
  readonly interToken: HistogramSnapshot;
  /** One step on rank 0's executor. */
  readonly step: HistogramSnapshot;
  /** Rank 0's executor waiting for the host: from the end of a step to the start of the next, with work throughout. */
  readonly hostGap: HistogramSnapshot;
}

/** Running totals of an engine since it was loaded, and its current requests and blocks. */
export interface EngineStats extends MetricsSnapshot {
  readonly numPreemptions: number;
  /** Prompt tokens looked up in the prefix cache at first admission, and those found. */
  readonly numPrefixQueryTokens: number;
  readonly numPrefixHitTokens: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly numFreeBlocks: number;
  /** Blocks in the prefix cache, and evictions from it. */
  readonly numCachedBlocks: number;
  readonly numEvictions: number;
  readonly numBlocks: number;
  /** Free blocks of the draft model's cache, which has `numBlocks` too. */
  readonly numFreeDraftBlocks: number;
  /** Draft statistics; null without speculation. */
  readonly speculation: SpeculationStats | null;
}
