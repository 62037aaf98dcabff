/**
 * Speculation judged by coins, end to end: the last three of six tokens, which take at least three rounds of one draft,
 * have the target's joint distribution.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Test, test } from 'tap';
import { LLM, type LLMOptions, type SpeculativeConfig } from '../../rank/index.ts';
import { goodModel } from '../helpers/checkpoint-edits.ts';
import { writeBlurredModel } from '../helpers/draft-folders.ts';
import { isFull } from '../helpers/scale.ts';
import { at } from '../helpers/testing.ts';
import { distribution, type Edits, exact, type Filters, misfit, noEdits, processed } from '../references/process-logits.ts';

const largerModel = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const vocabSize = 2048;
/** The allowed tokens, none of them rare after any other in either model. */
const tokens = [462, 1099, 1102];
/** "Once upon a time, there was a little", then every pair of these tokens, for n-grams to match. */
const prompt = [484, 485, 259, 445, 12, 389, 271, 259, 539, 462, 462, 1099, 1099, 1102, 1102, 462, 1102, 1099, 462];
const numTokens = 6;
const numJudged = 3;
/** Samples per request. */
const n = 100;
const numDraws = 1500;
/**
 * Normal quantile of the limit: chance exceeds it less than once in fifty million times, for each of some thirty cases.
 */
const quantile = 5.5;
/** Min misfit of a wrong reference. */
const caught = 1.5;

type Params = Filters & Edits;
const none: Params = { ...noEdits, temperature: 1, topK: 0, topP: 1, minP: 0, allowedTokenIds: tokens };
const biases = [
  [1099, 0.8],
  [462, -0.7],
] as const;

/** Parameters of the draws, and a mistake that the test must detect. */
const cases: readonly (readonly [name: string, params: Partial<Params>, mistake: Partial<Params>])[] = [
  ['temperature', { temperature: 0.7 }, { temperature: 1 }],
  ['top-k', { temperature: 1.5, topK: 2 }, { temperature: 1.5, topK: 3 }],
  ['top-p', { temperature: 1.3, topP: 0.85 }, { temperature: 1.3, topP: 0.99 }],
  ['min-p', { temperature: 1.2, minP: 0.2 }, { temperature: 1.2, minP: 0.02 }],
  [
    'penalties',
    { repetitionPenalty: 1.1, presencePenalty: 0.3, frequencyPenalty: -0.9 },
    { repetitionPenalty: 1.1, presencePenalty: 0.3, frequencyPenalty: -0.5 },
  ],
  ['a bias', { logitBias: biases }, { logitBias: biases.slice(1) }],
  [
    'everything',
    { temperature: 1.2, minP: 0.05, topP: 0.97, frequencyPenalty: 1.5, presencePenalty: -0.4, logitBias: biases },
    { temperature: 1.2, minP: 0.05, topP: 0.97, frequencyPenalty: 1, presencePenalty: -0.4, logitBias: biases },
  ],
];

/** All texts of `length` of these tokens, in lexicographic order. */
function texts(length: number): number[][] {
  return length === 0 ? [[]] : texts(length - 1).flatMap((text) => tokens.map((token) => [...text, token]));
}

/** Logits after the prompt and each text of at most `numTokens - 1` tokens. */
type LogitTree = ReadonlyMap<string, Float32Array>;

async function readLogits(model: string): Promise<LogitTree> {
  await using llm = await LLM.load(model, { dtype: 'float32' });
  const tree = new Map<string, Float32Array>();
  for (const text of texts(numTokens - 1)) {
    const { data } = await llm.computeLogits([...prompt, ...text]);
    for (let length = 0; length < numTokens; length++) {
      const row = prompt.length + length - 1;
      tree.set(String(text.slice(0, length)), data.slice(row * vocabSize, (row + 1) * vocabSize));
    }
  }
  return tree;
}

/** `[3 ^ numJudged]` probabilities of the last `numJudged` tokens, in float64. */
function joint(tree: LogitTree, some: Partial<Params>): number[] {
  const params = { ...none, ...some };
  const cells = new Array<number>(tokens.length ** numJudged).fill(0);
  const walk = (text: readonly number[], mass: number): void => {
    if (text.length === numTokens) {
      const cell = cellOf(text);
      cells[cell] = at(cells, cell) + mass;
      return;
    }
    const row = processed(tree.get(String(text)) as Float32Array, params, prompt, text, exact);
    const probabilities = distribution(row, params);
    for (const token of tokens) if (at(probabilities, token) > 0) walk([...text, token], mass * at(probabilities, token));
  };
  walk([], 1);
  return cells;
}

function cellOf(text: readonly number[]): number {
  return text.slice(-numJudged).reduce((cell, token) => cell * tokens.length + tokens.indexOf(token), 0);
}

async function draw(llm: LLM, some: Partial<Params>, count: number): Promise<number[]> {
  const { logitBias, badWords: _, ...params } = { ...none, ...some };
  const own = { ...params, allowedTokenIds: tokens, logitBias: new Map(logitBias), n, maxTokens: numTokens, ignoreEos: true };
  const prompts = Array.from({ length: count / n }, () => ({ promptTokenIds: prompt }));
  const outputs = await llm.generate(
    prompts,
    prompts.map((_, seed) => ({ ...own, seed: seed + 1 })),
  );
  return outputs.flatMap((output) => output.outputs.map(({ tokenIds }) => cellOf(tokenIds)));
}

const options: LLMOptions = { dtype: 'float32', maxModelLen: 64, maxNumSeqs: 256, maxNumBatchedTokens: 2048 };

const sources: readonly (readonly [name: string, config: (draft: string) => SpeculativeConfig, options?: LLMOptions])[] = [
  ['a draft model, K = 1', (model) => ({ model, numSpeculativeTokens: 1 })],
  ['a draft model, K = 3', (model) => ({ model, numSpeculativeTokens: 3 }), { asyncScheduling: false }],
  ['a greedy draft model, K = 2', (model) => ({ model, numSpeculativeTokens: 2, draftSampleMethod: 'greedy' })],
  ['n-grams, K = 1', () => ({ method: 'ngram', numSpeculativeTokens: 1, promptLookupMin: 1 }), { asyncScheduling: false }],
  ['n-grams, K = 3', () => ({ method: 'ngram', numSpeculativeTokens: 3, promptLookupMin: 1 }), { asyncScheduling: false }],
  ['both, K = 2', (model) => ({ method: ['draft_model', 'ngram'], model, numSpeculativeTokens: 2, promptLookupMin: 1 })],
];

async function check(
  t: Test,
  config: SpeculativeConfig,
  more: LLMOptions,
  chosen: typeof cases,
  count: number,
  [target, ...others]: readonly [LogitTree, ...LogitTree[]],
): Promise<void> {
  await using llm = await LLM.load(goodModel, { ...options, ...more, speculativeConfig: { ...config, adaptiveK: false } });
  for (const [name, params, mistake] of chosen) {
    const drawn = await draw(llm, params, count);
    const fit = misfit(drawn, joint(target, params), quantile);
    const wrong = [joint(target, mistake), ...others.map((other) => joint(other, params))];
    const controls = wrong.map((probabilities) => misfit(drawn, probabilities, quantile));
    t.ok(
      fit < 1 && controls.every((control) => control > caught),
      `${name}: ${fit.toFixed(3)}, by wrong references ${controls.map((control) => control.toFixed(1))}`,
    );
  }
  const { numDraftTokens = 0, numAcceptedTokens = 0 } = llm.stats().speculation ?? {};
  t.ok(numAcceptedTokens > count / 6 && numDraftTokens - numAcceptedTokens > count / 6, `${numAcceptedTokens} of ${numDraftTokens} stay`);
}

test('tokens have the distribution of the target alone, whatever drafts', async (t) => {
  const draft = join(t.testdir({}), 'draft');
  writeBlurredModel(draft);
  const trees = [await readLogits(goodModel), await readLogits(draft)] as const;
  for (const [r, rejectionSampleMethod] of (['standard', 'block'] as const).entries()) {
    for (const [i, [name, config, more = {}]] of sources.entries()) {
      // Each parameter is run with each rule, sources alternating; a partial run has each rule with every fourth source.
      if (!isFull && (i + 2 * r) % 4 !== 0) continue;
      const chosen = [0, 1].map((k) => cases[(2 * i + 3 * r + k) % cases.length] as (typeof cases)[number]);
      await t.test(`${rejectionSampleMethod}, ${name}`, (t) =>
        check(t, { ...config(draft), rejectionSampleMethod }, more, chosen, numDraws, trees),
      );
    }
  }
  await t.test('block, a larger model drafts', (t) => {
    const config = { model: largerModel, numSpeculativeTokens: 1, rejectionSampleMethod: 'block' } as const;
    return check(t, config, {}, cases.slice(2, 3), 1000, trees);
  });
});
