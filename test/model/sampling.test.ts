/**
 * Sampling through the runner: each parameter draws from the distribution that defines it, and a wrong one is detected.
 */
import { type Test, test } from 'tap';
import { LogitRowKind } from '../../protocol/step-plan.ts';
import { native, type Runner } from '../../rank/native.ts';
import { nextTokenProgram, submit, vocabSize } from '../helpers/next-token.ts';
import { admitPlan, decodePlan, type SlotState } from '../helpers/slot-plans.ts';
import { at } from '../helpers/testing.ts';
import { distribution, exact, misfit, processed } from '../references/process-logits.ts';

const alone = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 1, shmFd: -1, startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 };
const batchSize = 256;
const numDraws = 50 * batchSize;

/** Without the seed, of which each draw has its own. */
type Params = Omit<SlotState, 'seed'>;

const none: Params = {
  temperature: 1,
  topP: 1,
  minP: 0,
  topK: 0,
  sampleIndex: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  minTokens: 0,
  stopTokenIds: [],
  logitBias: [],
  allowedTokenIds: null,
  badWords: [],
  numLogprobs: null,
  numPromptLogprobs: null,
};

/** A model whose logits depend on the last token only, and draws and expectations from it. */
async function openModel(t: Test) {
  const program = nextTokenProgram(t, 0.15);
  const runner: Runner = native().createRunner({ ...alone, numThreads: 2 });
  t.teardown(() => runner.close());
  await runner.load({
    ...program,
    kv: { ...program.kv, numBlocks: batchSize },
    maxNumSeqs: batchSize,
    maxNumBatchedTokens: batchSize * 16,
    maxNumLogitRows: batchSize,
  });
  let step = 0;
  const every = Array.from({ length: vocabSize }, (_, id) => ({ prompt: [id] }));
  const { logits } = await submit(runner, admitPlan(step++, every, LogitRowKind.return));
  const logitsAfter = (token: number): Float32Array => logits.subarray(token * vocabSize, (token + 1) * vocabSize);

  /** `[numTokens][numDraws]` tokens drawn one after another after prompt and output, with one seed per draw. */
  async function draw(params: Params, prompt: readonly number[], output: readonly number[], numTokens: number): Promise<number[][]> {
    const drawn: number[][] = Array.from({ length: numTokens }, () => []);
    for (let first = 0; first < numDraws; first += batchSize) {
      const sequences = Array.from({ length: batchSize }, (_, i) => ({ prompt, output, params: { ...params, seed: BigInt(first + i) } }));
      const lengths = sequences.map(() => prompt.length + output.length);
      for (let i = 0; i < numTokens; i++) {
        const plan =
          i === 0
            ? admitPlan(step++, sequences)
            : decodePlan(
                step++,
                lengths.map((length) => length + i - 1),
              );
        (drawn[i] as number[]).push(...(await submit(runner, plan)).tokenIds);
      }
    }
    return drawn;
  }

  /** Probabilities of the next token in float64. */
  function expected(params: Params, prompt: readonly number[], output: readonly number[]): number[] {
    const last = [...prompt, ...output].at(-1) as number;
    return distribution(processed(logitsAfter(last), params, prompt, output, exact), params);
  }
  return { draw, expected };
}

// After token 12, in decreasing probability: 13, 7, 19, 38, 1, 25, 32, 31, 26, 37, 20, 6, 14, 12, 8, …
const prompt = [19, 4, 26, 31, 4];
const output = [7, 38, 7, 1, 12];
const near = [7, 8, 12, 13, 14, 19, 26, 38];

const everything: Partial<Params> = {
  temperature: 1.3,
  topK: 12,
  topP: 0.95,
  minP: 0.02,
  presencePenalty: 0.4,
  frequencyPenalty: -0.3,
  repetitionPenalty: 1.2,
  logitBias: [[26, 1]],
  badWords: [[1, 12, 20]],
  minTokens: 6,
  stopTokenIds: [13],
};

/** Parameters of the draws, and a mistake that the test must detect. */
const cases: Record<string, readonly [params: Partial<Params>, mistake: Partial<Params>]> = {
  temperature: [{ temperature: 0.7 }, { temperature: 0.9 }],
  'top-k': [{ topK: 5 }, { topK: 6 }],
  'top-p': [{ topP: 0.6 }, { topP: 0.7 }],
  'min-p': [{ minP: 0.2 }, { minP: 0.1 }],
  'a presence penalty': [{ presencePenalty: 1.5 }, { frequencyPenalty: 1.5 }],
  'a frequency penalty': [{ frequencyPenalty: 0.8 }, { presencePenalty: 0.8 }],
  'a negative presence penalty': [{ presencePenalty: -2 }, { presencePenalty: -1.5 }],
  'a repetition penalty': [{ repetitionPenalty: 1.5 }, { repetitionPenalty: 1.3 }],
  'a logit bias': [
    {
      logitBias: [
        [31, 1.5],
        [13, -3],
      ],
    },
    { logitBias: [[31, 1.5]] },
  ],
  'allowed tokens': [{ allowedTokenIds: near }, { allowedTokenIds: near.slice(1) }],
  'bad words': [{ badWords: [[13], [1, 12, 19], [12, 38]] }, { badWords: [[13], [1, 12, 19]] }],
  'min tokens': [
    { minTokens: 6, stopTokenIds: [38, 13] },
    { minTokens: 5, stopTokenIds: [38, 13] },
  ],
  'penalties together': [
    { repetitionPenalty: 1.7, presencePenalty: 0.5, frequencyPenalty: 0.3 },
    { repetitionPenalty: 1.7, presencePenalty: 0.3, frequencyPenalty: 0.8 },
  ],
  'a bias under a temperature': [
    { logitBias: [[20, 2]], temperature: 2 },
    { logitBias: [[20, 4]], temperature: 2 },
  ],
  'filters over penalties': [
    { frequencyPenalty: 0.9, repetitionPenalty: 1.4, topK: 12, topP: 0.8, minP: 0.05, temperature: 1.4 },
    { topK: 12, topP: 0.8, minP: 0.05, temperature: 1.4 },
  ],
  'filters over bans': [
    { allowedTokenIds: near, badWords: [[38]], minTokens: 9, stopTokenIds: [13], topP: 0.85, temperature: 1.2 },
    { allowedTokenIds: near, minTokens: 9, stopTokenIds: [13], topP: 0.85, temperature: 1.2 },
  ],
  everything: [everything, { ...everything, logitBias: [] }],
  'everything, with the mistake in the penalties': [everything, { ...everything, frequencyPenalty: 0 }],
  'everything, with the mistake in the bans': [everything, { ...everything, minTokens: 5 }],
};

test('every parameter draws from its distribution, after a prompt and some output', async (t) => {
  const { draw, expected } = await openModel(t);
  for (const [name, [params, mistake]] of Object.entries(cases)) {
    const [tokens = []] = await draw({ ...none, ...params }, prompt, output, 1);
    const fit = misfit(tokens, expected({ ...none, ...params }, prompt, output));
    const control = misfit(tokens, expected({ ...none, ...mistake }, prompt, output));
    t.ok(fit < 1 && control > 2, `${name}: ${fit}, with the mistake ${control}`);
  }
});

test('prompt and output are told apart', async (t) => {
  const { draw, expected } = await openModel(t);
  const told: Record<string, Partial<Params>> = {
    'a frequency penalty': { frequencyPenalty: 1 },
    'a presence penalty': { presencePenalty: 1.5 },
    'min tokens': { minTokens: 5, stopTokenIds: [13] },
    'bad words': { badWords: [[1, 12, 13]] },
  };
  for (const [name, own] of Object.entries(told)) {
    const params = { ...none, ...own };
    const whole = [...prompt, ...output];
    const [tokens = []] = await draw(params, whole, [], 1);
    const fit = misfit(tokens, expected(params, whole, []));
    const control = misfit(tokens, expected(params, prompt, output));
    t.ok(fit < 1 && control > 2, `${name}: ${fit}, as output ${control}`);
  }
});

test('a token drawn counts for the next: the pairs have their joint distribution', async (t) => {
  const { draw, expected } = await openModel(t);
  const pairs: Record<string, readonly [params: Partial<Params>, mistake: Partial<Params>]> = {
    penalties: [{ repetitionPenalty: 1.5, frequencyPenalty: 0.9, presencePenalty: 0.5 }, {}],
    'min tokens': [
      { minTokens: 6, stopTokenIds: [19, 13] },
      { minTokens: 7, stopTokenIds: [19, 13] },
    ],
    'bad words': [{ badWords: [[12, 13, 14], [13, 13], [14, 19], [38]] }, { badWords: [[38]] }],
    filters: [
      { frequencyPenalty: 1, topP: 0.9, minP: 0.05 },
      { topP: 0.9, minP: 0.05 },
    ],
  };
  for (const [name, [params, mistake]] of Object.entries(pairs)) {
    // Few allowed tokens keep the number of pairs small; the mistake is made in the second token only.
    const own = { ...none, allowedTokenIds: near, ...params };
    const joint = (second: Params): number[] =>
      expected(own, prompt, output).flatMap((p, token) =>
        p === 0 ? new Array<number>(vocabSize).fill(0) : expected(second, prompt, [...output, token]).map((q) => p * q),
      );
    const [first = [], second = []] = await draw(own, prompt, output, 2);
    const drawn = first.map((token, i) => token * vocabSize + at(second, i));
    const fit = misfit(drawn, joint(own));
    const control = misfit(drawn, joint({ ...none, allowedTokenIds: near, ...mistake }));
    t.ok(fit < 1 && control > 2, `${name}: ${fit}, with the mistake ${control}`);
  }
});
