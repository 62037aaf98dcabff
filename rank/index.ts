/** What users import. */
export { NdsError, type NdsErrorCode } from '../protocol/errors.ts';
export type { ShardReport } from '../protocol/messages.ts';
export type { ChatMessage, TextPart } from './chat-messages.ts';
export type { ChatOptions } from './chat-template.ts';
export type { EngineStats, FinishReason } from './engine-messages.ts';
export { type HistogramSnapshot, quantile } from './histogram.ts';
export { LLM, type Logits } from './llm.ts';
export type { MetricsHistograms } from './metrics.ts';
export type { LLMOptions, ResolvedOptions } from './options.ts';
export type { Prompt, TokenIds } from './prompt.ts';
export type { RequestOptions } from './request-options.ts';
export { type CompletionOutput, type Logprob, type PositionLogprobs, RequestOutput, type StreamChunk } from './request-output.ts';
export type { SamplingParams } from './sampling-params.ts';
export type { ResolvedSpeculativeConfig, SpeculativeConfig, SpeculativeMethod } from './speculative/config.ts';
export type { SpeculationStats } from './speculative/speculation-counts.ts';
