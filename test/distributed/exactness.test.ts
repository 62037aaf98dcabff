/** One seed, one answer: tokens and logits are bit-identical for any batch, chunking and number of ranks. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { type Answer, type Call, type Session, SharedJob } from '../helpers/gang.ts';
import { isFull, part } from '../helpers/scale.ts';

const model = join(fileURLToPath(new URL('../../examples/models/', import.meta.url)), 'story-5m');

/** Prompts of several lengths, each with another kind of sampling. */
const requests: Extract<Call, { type: 'generate' }>[] = [
  { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 40 } },
  { type: 'generate', prompt: 'The little dog was', params: { temperature: 0.8, seed: 11, maxTokens: 70 } },
  { type: 'generate', prompt: { promptTokenIds: longPrompt(150, 3) }, params: { temperature: 1, seed: 12, topK: 20, maxTokens: 30 } },
  { type: 'generate', prompt: { promptTokenIds: longPrompt(33, 5) }, params: { temperature: 1.3, seed: 13, topP: 0.9, maxTokens: 50 } },
  { type: 'generate', prompt: 'One day a cat', params: { temperature: 1, seed: 14, minP: 0.05, maxTokens: 60 } },
  {
    type: 'generate',
    prompt: { promptTokenIds: [7] },
    params: { temperature: 1, seed: 15, topK: 50, topP: 0.95, minP: 0.02, maxTokens: 64 },
  },
  { type: 'generate', prompt: { promptTokenIds: longPrompt(97, 7) }, params: { temperature: 2, seed: 16, ignoreEos: true, maxTokens: 90 } },
  { type: 'generate', prompt: 'One day', params: { temperature: 0, repetitionPenalty: 1.3, frequencyPenalty: 0.4, maxTokens: 80 } },
  {
    type: 'generate',
    prompt: { promptTokenIds: longPrompt(61, 4) },
    params: { seed: 17, presencePenalty: 1.5, topP: 0.9, logitBias: { 7: 2, 1200: -100 }, ignoreEos: true, maxTokens: 70 },
  },
  {
    type: 'generate',
    prompt: 'She saw',
    params: { seed: 18, allowedTokenIds: Array.from({ length: 300 }, (_, i) => i * 4), topK: 40, ignoreEos: true, maxTokens: 50 },
  },
];
const logits: Call = { type: 'logits', promptTokenIds: longPrompt(140, 9) };

/** Pseudo-random token ids. */
function longPrompt(length: number, step: number): number[] {
  return Array.from({ length }, (_, i) => (i * i * step + 17 * i + 5) % 2000);
}

/** A session whose answers are in the order of `requests`, then the logits. */
function session(options: LLMOptions, rounds: readonly (readonly Call[])[]): Session {
  return { model, options, rounds };
}

const alone = [...requests, logits].map((call) => [call]);
const together = [[...requests, logits]];

/** Ways to run the same requests, by what they vary. */
const ways: Record<string, { options: LLMOptions; rounds: readonly (readonly Call[])[] }> = {
  'one after the other': { options: {}, rounds: alone },
  'in one batch': { options: {}, rounds: together },
  'in chunks of at most 16 tokens': { options: { maxNumSeqs: 8, maxNumBatchedTokens: 16 }, rounds: together },
  'in chunks of at most 57 tokens': { options: { maxNumSeqs: 8, maxNumBatchedTokens: 57 }, rounds: together },
  'two at a time': { options: { maxNumSeqs: 2 }, rounds: together },
  'in blocks of 96 tokens': { options: { blockSize: 96 }, rounds: together },
  'on one thread': { options: { numThreads: 1 }, rounds: together },
  'on three threads': { options: { numThreads: 3 }, rounds: together },
};

/**
 * All ways on one and two ranks, two ways on more. A partial run skips half of the others than the first, another half
 * per dtype.
 */
function waysOf(worldSize: number, dtype: 'float32' | 'bfloat16'): string[] {
  if (worldSize > 2) return part(['in one batch', 'in chunks of at most 57 tokens'], 2);
  const [first = '', ...others] = Object.keys(ways);
  return [first, ...others.filter((_, i) => isFull || i % 2 === (dtype === 'float32' ? 0 : 1))];
}

const jobs = [1, 2, 3, 4].map((worldSize) => ({ worldSize, job: new SharedJob(worldSize) }));
const onOneRank = jobs[0]?.job as SharedJob;

for (const dtype of ['float32', 'bfloat16'] as const) {
  let reference: readonly Answer[] | undefined;
  for (const { worldSize, job } of jobs) {
    const names = waysOf(worldSize, dtype);
    const sessions = names.map((name) => {
      const way = ways[name] as (typeof ways)[string];
      return session({ dtype, ...(worldSize > 1 && { numThreads: 1 }), ...way.options }, way.rounds);
    });
    const run = job.add(sessions);
    test(`${dtype} on ${worldSize} ranks`, async (t) => {
      const results = (await run()).sessions;
      reference ??= results[0] as readonly Answer[];
      names.forEach((name, i) => t.same(results[i], reference, name));
    });
  }

  // 4 KV heads × 32 dimensions × K and V × 6 layers × 32 tokens. All six sequences are admitted, and two fill the pool
  // in the end.
  const kvCacheMemoryBytes = 12 * 4 * 32 * 2 * 6 * 32 * (dtype === 'float32' ? 4 : 2);
  const growing = Array.from({ length: 6 }, (_, i): Call => {
    return {
      type: 'generate',
      prompt: { promptTokenIds: longPrompt(9 + i, i + 1) },
      params: { seed: i, ignoreEos: true, maxTokens: 150, ...(i % 2 === 0 && { repetitionPenalty: 1.2, frequencyPenalty: 0.3 }) },
    };
  });
  const run = onOneRank.add([
    session(
      { dtype },
      growing.map((call) => [call]),
    ),
    session({ dtype, kvCacheMemoryBytes }, [growing]),
  ]);
  test(`${dtype}, preempted for want of KV blocks`, async (t) => {
    const result = await run();
    t.equal(result.numPreemptions[0], 0);
    t.ok((result.numPreemptions[1] ?? 0) > 0, 'sequences were preempted');
    t.same(result.sessions[1], result.sessions[0]);
  });
}
