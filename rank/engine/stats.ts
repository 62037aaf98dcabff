/** What `stats()` says: totals, histograms, and where requests and blocks are. */
import type { SpeculationStats } from '../speculative/counts.ts';
import type { HistogramSnapshot } from './histogram.ts';

/** Running totals since the model was loaded. */
export interface MetricsSnapshot {
  readonly numSteps: number;
  /** Prompt tokens computed, recomputed ones included. */
  readonly numPromptTokens: number;
  /** Tokens generated, less those that a step brought past the end of a text. */
  readonly numTokens: number;
  readonly numRequests: number;
  /** Requests that came to their end. */
  readonly numFinishedRequests: number;
  /** Those that their callers dropped before. */
  readonly numAbortedRequests: number;
  readonly maxNumBlocksInUse: number;
  /** Seconds that rank 0's executor worked. */
  readonly executeSeconds: number;
  /** Seconds of those that it waited for other ranks. */
  readonly waitSeconds: number;
  /** Bytes that rank 0 published to the others: partial sums, embedding rows, candidates, logits. */
  readonly exchangedBytes: number;
  /** Bytes of partial sums alone. */
  readonly allReduceBytes: number;
  readonly histograms: MetricsHistograms;
}

/** All in seconds; of each sample of a request by itself. */
export interface MetricsHistograms {
  /** From a request's arrival to the first step that it is part of. */
  readonly queue: HistogramSnapshot;
  /** From there to its first token. */
  readonly prefill: HistogramSnapshot;
  /** From its first token to its last. */
  readonly decode: HistogramSnapshot;
  /** From its arrival to its first token. */
  readonly timeToFirstToken: HistogramSnapshot;
  /** From one of its tokens to the next. */
  readonly interToken: HistogramSnapshot;
  /** One step on rank 0's executor. */
  readonly step: HistogramSnapshot;
  /** From the end of a step to the start of the next on rank 0's executor, where there was work throughout: what it waits for the host. */
  readonly hostGap: HistogramSnapshot;
}

/** Running totals of an engine since it was loaded, and where its requests and blocks are now. */
export interface EngineStats extends MetricsSnapshot {
  readonly numPreemptions: number;
  /** Prompt tokens that were looked up in the prefix cache when their sequences were first let in, and those that were found there. */
  readonly numPrefixQueryTokens: number;
  readonly numPrefixHitTokens: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly numFreeBlocks: number;
  /** Blocks that the prefix cache can find again, and how many it gave up for their room. */
  readonly numCachedBlocks: number;
  readonly numEvictions: number;
  readonly numBlocks: number;
  /** Blocks of the draft model's cache that nobody holds; it has as many as the model's. */
  readonly numFreeDraftBlocks: number;
  /** What became of drafts; null without speculation. */
  readonly speculation: SpeculationStats | null;
}
