/** Heads of 64 dimensions on the emulated device, which tensor cores serve, over a bf16 and an int8 cache: the same bits however run. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { editJson, readWeights, writeWeights } from '../helpers/checkpoint-edits.ts';
import { type Answer, type Call, logitsOf, runJob, type Session } from '../helpers/gang.ts';
import { smallestCosine } from '../helpers/goldens.ts';
import { fullOnly, isAll } from '../helpers/scale.ts';
import { emulatedBackend } from './emulated.ts';

const env = await emulatedBackend();
const story = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));

/** The model of 8 heads of 32 read as 4 heads of 64, their norms' weights twice: it writes no stories. */
function writeWideHeads(folder: string): void {
  cpSync(story, folder, { recursive: true });
  const { header, data } = readWeights(folder);
  const parts: Buffer[] = [];
  let end = 0;
  const entries = Object.entries(header).map(([name, { data_offsets, shape, ...entry }]) => {
    const copies = /[qk]_norm/.test(name) ? 2 : 1;
    const part = data.subarray(...(data_offsets as [number, number]));
    for (let i = 0; i < copies; i++) parts.push(part);
    end += part.length * copies;
    const changed = { ...entry, shape: copies === 2 ? [64] : shape, data_offsets: [end - part.length * copies, end] };
    return [name, changed] as const;
  });
  writeWeights(folder, { header: Object.fromEntries(entries), data: Buffer.concat(parts) });
  editJson(folder, 'config.json', { head_dim: 64, num_attention_heads: 4, num_key_value_heads: 2 });
}
const model = join(t.testdir(), 'model');
writeWideHeads(model);

const ids = (length: number) => Array.from({ length }, (_, i) => (i * i * 3 + 17 * i + 5) % 2000);
// The first sees two segments of keys.
const requests: readonly Call[] = [
  { type: 'generate', prompt: { promptTokenIds: ids(150) }, params: { seed: 12, ignoreEos: true, maxTokens: 6 } },
  { type: 'generate', prompt: { promptTokenIds: ids(9) }, params: { temperature: 0, ignoreEos: true, maxTokens: 10 } },
  { type: 'generate', prompt: { promptTokenIds: ids(150) }, params: { seed: 13, topK: 20, ignoreEos: true, maxTokens: 6 } },
  { type: 'logits', promptTokenIds: ids(140) },
];
const alone = requests.map((call) => [call]);
const together = [requests];

/** Ways to run the same requests. What each is for is its name. */
const ways: Record<string, { options?: LLMOptions; rounds: readonly (readonly Call[])[]; worldSize?: number }> = {
  'one after the other, the third on the blocks of the first': { rounds: alone },
  'in one batch': { rounds: together },
  'in chunks of at most 16 tokens': { options: { maxNumSeqs: 5, maxNumBatchedTokens: 16 }, rounds: together },
  'in blocks of 96 tokens': { options: { blockSize: 96 }, rounds: together },
  'with drafts of n-grams': {
    options: { speculativeConfig: { method: 'ngram', promptLookupMin: 1, numSpeculativeTokens: 3, adaptiveK: false } },
    rounds: together,
  },
  'on two ranks': { rounds: together, worldSize: 2 },
};
const device = { device: 'cuda', deterministic: true, maxNumSeqs: 8, maxNumBatchedTokens: 256, kvCacheMemoryBytes: 2 ** 23 } as const;

for (const kvCacheDtype of isAll ? (['auto', 'int8'] as const) : (['int8'] as const)) {
  t.test(`kvCacheDtype ${kvCacheDtype}: tokens and logits are the same bits`, fullOnly, async (t) => {
    let reference: readonly Answer[] = [];
    for (const worldSize of [1, 2]) {
      const names = Object.keys(ways).filter((name) => (ways[name]?.worldSize ?? 1) === worldSize);
      const sessions = names.map((name): Session => {
        const { options = {}, rounds = together } = ways[name] ?? {};
        return { model, options: { dtype: 'bfloat16', kvCacheDtype, ...device, ...options }, rounds };
      });
      const answers = (await runJob(worldSize, sessions, env)).sessions;
      if (worldSize === 1) reference = answers[0] as readonly Answer[];
      names.forEach((name, i) => t.same(answers[i], reference, name));
    }
    const onCpu = { dtype: 'bfloat16', kvCacheDtype, device: 'cpu', numThreads: 1 } as const;
    const [[expected] = []] = (await runJob(1, [{ model, options: onCpu, rounds: [requests.slice(3)] }], env)).sessions;
    const cosine = smallestCosine(logitsOf(reference[3]), logitsOf(expected), 2048);
    t.ok(cosine >= 0.999, `logits of the CPU: cosine ${cosine}`);
  });
}
