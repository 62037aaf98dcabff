/** The continuations of a prompt as `ndsrun generate` writes them, for people and for other programs. */
import type { RequestOutput, SpeculationStats } from '../../rank/index.ts';

/** All texts, each under a line that numbers it. */
export function textOf({ outputs }: RequestOutput): string {
  return outputs.map(({ text }, i) => `--- ${i + 1} of ${outputs.length} ---\n${text}`).join('\n');
}

/**
 * One object for one continuation, an array for several. The seed is text, for JSON holds no such large integers;
 * log-probabilities are there where they were asked for, and what became of drafts where there were some.
 */
export function describeOutput(
  { prompt, promptTokenIds, seed, outputs, promptLogprobs, numCachedTokens }: RequestOutput,
  timing: object,
): unknown {
  const all = outputs.map(({ text, tokenIds, finishReason, stopReason, logprobs, speculation }) => ({
    prompt,
    promptTokenIds,
    text,
    tokenIds,
    seed: String(seed),
    finishReason,
    stopReason,
    ...(logprobs !== null && { logprobs }),
    ...(promptLogprobs !== null && { promptLogprobs }),
    ...(speculation !== null && { speculation }),
    numCachedTokens,
    timing,
  }));
  return all.length === 1 ? all[0] : all;
}

type Totals = Pick<SpeculationStats, 'numDraftTokens' | 'numAcceptedTokens' | 'meanAcceptanceLength'>;

/** What speculation did, for the line of timings. */
export function describeSpeculation({ numDraftTokens, numAcceptedTokens, meanAcceptanceLength }: Totals): string {
  if (numDraftTokens === 0) return 'nothing drafted';
  return `mean acceptance length ${meanAcceptanceLength.toFixed(2)}, ${numAcceptedTokens} of ${numDraftTokens} drafts accepted`;
}
