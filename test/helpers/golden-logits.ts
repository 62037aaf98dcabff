/** Prints a hash of the logits and the log-probabilities of each golden checkpoint's prompts, a line each. */
import { createHash } from 'node:crypto';
import { LLM } from '../../rank/index.ts';
import { goldenNames, readGolden } from './goldens.ts';

for (const name of goldenNames) {
  const { path, prompts } = readGolden(name);
  for (const kvCacheDtype of ['auto', 'int8'] as const) {
    const llm = await LLM.load(path, { kvCacheDtype, kvCacheMemoryBytes: 2 ** 24 });
    const hash = createHash('sha256');
    for (const prompt of prompts) hash.update((await llm.computeLogits(prompt)).data);
    const params = { temperature: 0.8, seed: 7n, topP: 0.9, maxTokens: 16, ignoreEos: true, logprobs: 3 };
    for (const { outputs } of await llm.generate(
      prompts.map((promptTokenIds) => ({ promptTokenIds })),
      params,
    ))
      hash.update(JSON.stringify(outputs.map((one) => [one.tokenIds, one.logprobs])));
    console.log(`${name} ${kvCacheDtype} ${hash.digest('hex').slice(0, 32)}`);
    await llm.close();
  }
}
