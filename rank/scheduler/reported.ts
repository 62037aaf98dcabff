/** Which requests can go on from what they have reported before. */
import { type NdsError, unexpected } from '../../protocol/errors.ts';
import { longestSequence, type SchedulerLimits } from './limits.ts';
import { type EngineRequest, type GenerateRequest, openSamples, type Reported, type ReportedSample } from './request.ts';

/** Limits of the engine, and the vocabulary that its tokens are drawn from. */
export type ReportedLimits = SchedulerLimits & { readonly sampleVocabSize: number };

/**
 * Checks what a request has reported before; nothing to check for a new request.
 * @throws NdsError `ERR_REQUEST` for counts or tokens that no unfinished request can have reported.
 */
export function checkReported(request: EngineRequest, limits: ReportedLimits): void {
  const { reported } = request;
  if (reported === undefined) return;
  const refuse = refusal(request);
  const numSamples = request.type === 'generate' ? request.n : 0;
  if (reported.samples.length !== numSamples) throw refuse(`${numSamples} reported samples`, String(reported.samples.length));
  if (openSamples(request).length === 0) throw refuse('an unfinished sample', 'none');
  checkRows(request, reported);
  if (request.type !== 'generate') return;
  for (const sample of reported.samples) if (sample !== null) checkSample(request, sample, limits);
}

function checkRows(request: EngineRequest, { numRows, samples }: Reported): void {
  const total = numRowsOf(request);
  const isGenerate = request.type === 'generate';
  // The first sample reports the prompt; other requests end with their last row.
  const [least, most] = [isGenerate && samples[0] === null ? total : 0, isGenerate ? total : total - 1];
  if (isCount(numRows, most) && numRows >= least) return;
  throw refusal(request)(`${least} to ${most} reported rows of the prompt`, String(numRows));
}

/** Rows that a request reports of its prompt. */
function numRowsOf(request: EngineRequest): number {
  const { length } = request.promptTokenIds;
  if (request.type !== 'generate') return request.type === 'hidden' ? length - request.firstRow : length;
  return request.params.numPromptLogprobs === null ? 0 : length - 1;
}

function checkSample(request: GenerateRequest, { outputTokenIds, numCachedTokens }: ReportedSample, limits: ReportedLimits): void {
  const { promptTokenIds, maxTokens, eosTokenIds, stopTokenIds } = request;
  const refuse = refusal(request);
  const most = Math.min(maxTokens, longestSequence(limits) - promptTokenIds.length) - 1;
  if (outputTokenIds.length > most) throw refuse(`at most ${most} reported tokens of an unfinished sample`, String(outputTokenIds.length));
  const wrong = outputTokenIds.find((id) => !isCount(id, limits.sampleVocabSize - 1));
  if (wrong !== undefined) throw refuse(`reported token ids from 0 to ${limits.sampleVocabSize - 1}`, String(wrong));
  const last = outputTokenIds.find((id) => eosTokenIds.includes(id) || stopTokenIds.includes(id));
  if (last !== undefined) throw refuse('no token that ends a text among those reported', `token ${last}`);
  if (!isCount(numCachedTokens, promptTokenIds.length - 1)) {
    throw refuse(`0 to ${promptTokenIds.length - 1} reported cached tokens`, String(numCachedTokens));
  }
}

function refusal({ requestId }: EngineRequest): (expected: string, received: string) => NdsError {
  return (expected, received) => unexpected('ERR_REQUEST', expected, `request ${requestId}`, received, String);
}

function isCount(value: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= most;
}
