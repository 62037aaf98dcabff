/** What the tests of exchanges between devices compute, and with which models. */
import { fileURLToPath } from 'node:url';
import type { LLMOptions, SamplingParams } from '../../rank/index.ts';
import type { Call, Session } from '../helpers/gang.ts';

export const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));

/** Drafts of a model that ranks share. */
export const drafts: LLMOptions = {
  speculativeConfig: { model: story, numSpeculativeTokens: 3, adaptiveK: false, draftTensorParallelSize: 2 },
};

/** Decodes the first prompt greedily, the second once for each of `sampled`, and computes its logits. */
export function work(model: string, prompts: readonly (readonly number[])[], sampled: readonly SamplingParams[]) {
  const [first = [], second = first] = prompts;
  const generate = (promptTokenIds: readonly number[], params: SamplingParams): Call => ({
    type: 'generate',
    prompt: { promptTokenIds },
    params: { maxTokens: 12, ignoreEos: true, ...params },
  });
  const requests: Call[] = [
    generate(first, { temperature: 0 }),
    ...sampled.map((params) => generate(second, params)),
    { type: 'logits', promptTokenIds: second },
  ];
  return (deterministic: boolean, options: LLMOptions = {}): Session => ({
    model,
    options: { dtype: 'float32', device: 'cuda', deterministic, maxNumSeqs: 4, kvCacheMemoryBytes: 2 ** 23, ...options },
    rounds: [requests],
  });
}
