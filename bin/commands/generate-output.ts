/** The output of `ndsrun generate`: continuations of a prompt as text and as JSON. */
import type { FinishReason, RequestOutput, SpeculationStats } from '../../rank/index.ts';

/** All texts, each under a numbered line. */
export function textOf({ outputs }: RequestOutput): string {
  return outputs.map(({ text }, i) => `--- ${i + 1} of ${outputs.length} ---\n${text}`).join('\n');
}

/**
 * One object for one continuation, an array for several. `seed` is a string, as JSON numbers are not exact at 64 bits.
 * `logprobs` and `promptLogprobs` are present where they were requested, `speculation` with speculative decoding.
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

/** Speculation statistics, for the line of timings. */
export function describeSpeculation({ numDraftTokens, numAcceptedTokens, meanAcceptanceLength }: Totals): string {
  if (numDraftTokens === 0) return 'nothing drafted';
  return `mean acceptance length ${meanAcceptanceLength.toFixed(2)}, ${numAcceptedTokens} of ${numDraftTokens} drafts accepted`;
}

/** How a text ended. */
interface Ending {
  readonly finishReason: FinishReason | null;
  readonly numTokens: number;
}

/** A line that says which texts were cut, by `maxTokens` or by the context; empty where none was. */
export function describeCuts(texts: readonly Ending[], maxTokens: number): string {
  const cut = texts.filter(({ finishReason }) => finishReason === 'length');
  if (cut.length === 0) return '';
  const isByLimit = cut.some(({ numTokens }) => numTokens >= maxTokens);
  const what = texts.length === 1 ? 'the text was cut' : `${cut.length} of ${texts.length} texts were cut`;
  return `${what}: ${isByLimit ? `--max-tokens is ${maxTokens}` : 'the context is full'}\n`;
}
