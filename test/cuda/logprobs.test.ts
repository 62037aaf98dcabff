/** Log-probabilities of any number of tokens from the engine on the emulated device, against its own logits. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { RequestEvent } from '../../rank/engine/engine-client.ts';
import type { LLMOptions, PositionLogprobs } from '../../rank/index.ts';
import { type OpenModel, openModel } from '../../rank/open-model.ts';
import { OpenShare } from '../../rank/open-share.ts';
import { checkTokenIds } from '../../rank/request/prompt.ts';
import { RequestRun } from '../../rank/request/request-run.ts';
import { resolveSamplingParams } from '../../rank/request/sampling-params.ts';
import { emulatedBackend } from './emulated.ts';

Object.assign(process.env, await emulatedBackend());
const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const greedy = { temperature: 0, maxTokens: 5, ignoreEos: true };

/** Positions of the prompt but its first, then of the output. `LLM` asks for at most 20 tokens, so it is not asked. */
function positionsOf(model: OpenModel, promptTokenIds: number[], numLikeliest: number | null): Promise<(PositionLogprobs | null)[]> {
  const positions: (PositionLogprobs | null)[] = [];
  return new Promise((resolve, reject) => {
    const onChunk = (chunk: { logprobs: readonly PositionLogprobs[] | null; finished: boolean }) => {
      positions.push(...(chunk.logprobs ?? []));
      if (chunk.finished) resolve([...(run.promptLogprobs?.slice(1) ?? []), ...positions]);
    };
    const params = { ...resolveSamplingParams(greedy, {}), logprobs: numLikeliest, promptLogprobs: numLikeliest };
    const prompt = { prompt: null, promptTokenIds: checkTokenIds(promptTokenIds, model.limits, 1) };
    const run = new RequestRun(model, prompt, params, 0, { onChunk, onError: reject });
    run.start();
  });
}

/** `[numTokens, vocabSize]` */
function logitsOf({ client }: OpenModel, promptTokenIds: number[]): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  return new Promise((resolve, reject) => {
    const onEvent = (event: RequestEvent) => {
      if (event.type !== 'rows') return;
      rows.push(event.rows);
      if (event.finished) resolve(rows);
    };
    client.submit({ type: 'logits', promptTokenIds, priority: 0 }, { onEvent, onError: reject });
  });
}

const counts = [3, 64, 65, 200, 1e6];
const prompts = counts.map((_, n) => Array.from({ length: 6 }, (_, i) => 1 + ((i * (n + 3) * 77 + i) % 1000)));

async function withModel<T>(more: LLMOptions, use: (model: OpenModel) => Promise<T>): Promise<T> {
  const options = { device: 'cuda', dtype: 'float32', deterministic: true, maxNumSeqs: 6, maxNumBatchedTokens: 64, ...more } as const;
  const share = OpenShare.enter(null);
  const model = await openModel(story, options, null, share);
  const result = await use(model);
  await model.client.close();
  await model.gang.unload();
  share.leave();
  return result;
}

/** Of all prompts at once: rows of one step have different numbers, and those of one request none. */
async function reportsOf(model: OpenModel) {
  const withNone = [...counts, null].map((count, i) => positionsOf(model, prompts[i] ?? [1, 2], count));
  return (await Promise.all(withNone)).slice(0, counts.length);
}

let plain: Awaited<ReturnType<typeof reportsOf>> = [];
t.test('as many log-probabilities as are asked for, up to the vocabulary', (t) =>
  withModel({}, async (model) => {
    const { sampleVocabSize, limits } = model;
    plain = await reportsOf(model);
    for (const [i, positions] of plain.entries()) {
      const prompt = prompts[i] as number[];
      const tokens = [...prompt, ...positions.slice(prompt.length - 1).map((position) => position?.tokenId ?? -1)];
      t.equal(tokens.length, prompt.length + greedy.maxTokens);
      const logits = Float32Array.from((await logitsOf(model, tokens)).flatMap((part) => [...part]));
      for (const [at, position] of positions.entries()) {
        const row = logits.subarray(at * limits.vocabSize, (at + 1) * limits.vocabSize);
        const logSum = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
        const drawable = [...row.keys()].slice(0, sampleVocabSize);
        const order = drawable.sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
        const { tokenId = -1, logprob = 0, rank = 0, top = [] } = position ?? {};
        t.same([tokenId, order[rank - 1]], [tokens[at + 1], tokenId], 'the token of the text, and its rank');
        const likeliest = top.map((one) => one.tokenId);
        t.same(likeliest, order.slice(0, counts[i]), `${counts[i]} likeliest of position ${at}`);
        const isRight = (one: { tokenId: number; logprob: number }) =>
          Math.abs(one.logprob - ((row[one.tokenId] as number) - logSum)) < 1e-4;
        t.ok(isRight({ tokenId, logprob }) && top.every(isRight), 'of the softmax');
      }
    }
  }),
);

t.test('drafts change none of them', (t) =>
  withModel({ speculativeConfig: { model: story, numSpeculativeTokens: 3, adaptiveK: false } }, async (model) => {
    t.same(await reportsOf(model), plain);
    t.ok((model.client.stats.speculation?.numAcceptedTokens ?? 0) > 0, 'some drafts were accepted');
  }),
);
