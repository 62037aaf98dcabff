/** A rank that loads a model and says when it has a first token: `first-token.ts MODEL PROMPT_LEN QUANTIZATION THREADS`. */
import { LLM } from 'nano-dist-spec';

const [, , model = '', promptLen = '', quantization = '', numThreads = ''] = process.argv;
await using llm = await LLM.load(model, {
  device: 'cpu',
  quantization: quantization as 'none' | 'int8' | 'int4',
  numThreads: Number(numThreads),
});
const promptTokenIds = Array.from({ length: Number(promptLen) }, (_, i) => (i * 7919 + 11) % 256);
for await (const _ of llm.stream({ promptTokenIds }, { temperature: 0, ignoreEos: true, maxTokens: 1 })) console.log('first token');
