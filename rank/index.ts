/** The public API. */
/// <reference types="node" preserve="true" />

export { NdsError, type NdsErrorCode } from '../protocol/errors.ts';
export type { ShardReport } from '../protocol/messages.ts';
export type { ChatOptions } from './chat/chat-template.ts';
export type { ChatMessage, TextPart } from './chat/messages.ts';
export { type HistogramSnapshot, quantile } from './engine/histogram.ts';
export type { EngineStats, MetricsHistograms } from './engine/stats.ts';
export { LLM, type Logits } from './llm.ts';
export type { ApplyChatTemplateOptions, LLMTokenizer } from './llm-tokenizer.ts';
export type { LoadProgress, OnLoadProgress } from './load-progress.ts';
export type { LLMOptions, ResolvedOptions } from './options.ts';
export { EmbeddingOutput, type EmbedOptions } from './request/embedding.ts';
export type { Prompt, TokenIds } from './request/prompt.ts';
export type { GenerateOptions, GenerateProgress, RequestOptions } from './request/request-options.ts';
export { type CompletionOutput, type Logprob, type PositionLogprobs, RequestOutput, type StreamChunk } from './request/request-output.ts';
export type { SamplingParams } from './request/sampling-params.ts';
export type { FinishReason } from './scheduler/request.ts';
export type { ResolvedSpeculativeConfig, SpeculativeConfig, SpeculativeMethod } from './speculative/config.ts';
export type { SpeculationStats } from './speculative/counts.ts';
export type { DecodeOptions, EncodeOptions } from './text/tokenizer.ts';
