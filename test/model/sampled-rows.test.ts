/** Sampled logit rows of a step: edits by the history, log-probabilities, and the same results on two ranks. */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { LogitRowKind, type StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import { native, type Runner } from '../../rank/native.ts';
import type { ProgramSpec } from '../../rank/program-spec.ts';
import { nextTokenProgram, nextTokenShare, submit, vocabSize } from '../helpers/next-token.ts';
import { type Admitted, admitPlan, decodePlan } from '../helpers/slot-plans.ts';
import { at, sameBits } from '../helpers/testing.ts';
import { noEdits, processed } from '../references/process-logits.ts';

const timeouts = { startupTimeoutMs: 60_000, stepTimeoutMs: 60_000 };
const scale = 0.15;
/** Ids from here on are padding of the vocabulary. */
const sampleVocabSize = 37;

const roomy = (program: ProgramSpec): ProgramSpec => ({
  ...program,
  kv: { ...program.kv, numBlocks: vocabSize },
  maxNumSeqs: vocabSize,
  maxNumBatchedTokens: 512,
  maxNumLogitRows: 512,
  sampleVocabSize,
});

async function openRunner(t: Test): Promise<Runner> {
  const runner = native().createRunner({
    rank: 0,
    worldSize: 1,
    localRank: 0,
    localWorldSize: 1,
    shmFd: -1,
    numThreads: 2,
    ...timeouts,
  });
  t.teardown(() => runner.close());
  await runner.load(roomy(nextTokenProgram(t, scale)));
  return runner;
}

/** Runners of two ranks that share a model; the second has the tokens from 32 on. */
async function openTwoRanks(t: Test): Promise<readonly [Runner, Runner]> {
  const folder = mkdtempSync(join(tmpdir(), 'nds-rows-'));
  const shmFd = openSync(join(folder, 'shm'), 'w+');
  const open = (rank: number) =>
    native().createRunner({ rank, worldSize: 2, localRank: 0, localWorldSize: 64, shmFd, numThreads: 1, ...timeouts });
  const ranks = [open(0), open(1)] as const;
  t.teardown(async () => {
    await Promise.all(ranks.map((runner) => runner.close()));
    closeSync(shmFd);
    rmSync(folder, { recursive: true });
  });
  await Promise.all(ranks.map((runner, rank) => runner.load(roomy(nextTokenShare(t, rank, scale)))));
  return ranks;
}

/** `[vocabSize][vocabSize]` raw logits after each token. */
async function logitsOf(runner: Runner, step: number): Promise<Float32Array[]> {
  const every = Array.from({ length: vocabSize }, (_, id) => ({ prompt: [id] }));
  const { logits } = await submit(runner, admitPlan(step, every, LogitRowKind.return));
  return every.map((_, id) => logits.slice(id * vocabSize, (id + 1) * vocabSize));
}

function bestOf(row: readonly number[]): number {
  const drawable = row.slice(0, sampleVocabSize);
  return drawable.indexOf(Math.max(...drawable));
}

test('greedy decoding follows penalties, bans and min tokens, token after token', async (t) => {
  const runner = await openRunner(t);
  const logits = await logitsOf(runner, 0);
  const edits = {
    ...noEdits,
    repetitionPenalty: 1.3,
    presencePenalty: 0.25,
    frequencyPenalty: 0.6,
    minTokens: 14,
    stopTokenIds: [8, 31],
    logitBias: [[20, 0.7]] as const,
    badWords: [[20, 21], [1, 2, 3], [19]],
  };
  const prompt = [3, 9, 3, 14];
  let step = 1;
  const plain = { presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1 };
  for (const own of [edits, { ...edits, ...plain }, { ...edits, badWords: [] }]) {
    const expected: number[] = [];
    while (expected.length < 25) {
      const row = logits[[...prompt, ...expected].at(-1) as number] as Float32Array;
      expected.push(bestOf(processed(row, own, prompt, expected, Math.fround)));
    }
    const tokens: number[] = [];
    for (let i = 0; i < expected.length; i++, step++) {
      const plan = i === 0 ? admitPlan(step, [{ prompt, params: own }]) : decodePlan(step, [prompt.length + i - 1]);
      tokens.push(...(await submit(runner, plan)).tokenIds);
    }
    t.same(tokens, expected);
    // As after preemption: the generated tokens are admitted as history.
    const again = await submit(runner, admitPlan(step++, [{ prompt, output: expected.slice(0, 12), params: own }]));
    t.same([...again.tokenIds], expected.slice(12, 13), 'also when it is admitted again');
  }
});

const near = [1, 3, 7, 12, 13, 14, 19, 20, 26, 31, 33, 36];

/** One sequence of each kind. */
const mixed: readonly Admitted[] = [
  { prompt: [5, 6, 7], params: { numLogprobs: 3 } },
  { prompt: [12, 5, 12], output: [7, 7], params: { repetitionPenalty: 2, frequencyPenalty: 1, numLogprobs: 0 } },
  { prompt: [12], params: { temperature: 1, seed: 9n } },
  { prompt: [12], output: [31], params: { temperature: 1.5, seed: 10n, presencePenalty: 1, topP: 0.9, numLogprobs: 20 } },
  { prompt: [2, 2], params: { temperature: 2, seed: 11n, allowedTokenIds: near, topK: 6, numLogprobs: 1000 } },
  {
    prompt: [3],
    params: {
      temperature: 1,
      seed: 12n,
      logitBias: [
        [35, 3],
        [4, -5],
      ],
      badWords: [[33], [7]],
      minP: 0.01,
    },
  },
  { prompt: [8], output: [9], params: { temperature: 0.5, seed: 13n, minTokens: 3, stopTokenIds: [9, 10], numLogprobs: 5 } },
];

/** The plan that samples a token of each. */
const samplePlan = admitPlan(0, mixed);

/** A plan of their prompts' log-probabilities: each token given the preceding ones. */
function promptPlan(step: number, sequences: readonly Admitted[], n: number): StepPlan {
  const params = { numPromptLogprobs: n, numLogprobs: 2 };
  const plan = admitPlan(
    step,
    sequences.map(({ prompt, output = [] }) => ({ prompt: [...prompt, ...output], params })),
  );
  const ends = [...plan.cuQueryLens].slice(1);
  const rows = Array.from(plan.tokenIds, (_, row) => row);
  const isLast = (row: number) => ends.includes(row + 1);
  return {
    ...plan,
    logitRows: Int32Array.from(rows),
    logitRowKinds: Int32Array.from(rows, (row) => (isLast(row) ? LogitRowKind.sample : LogitRowKind.promptLogprobs)),
    logitRowTargets: Int32Array.from(rows, (row) => (isLast(row) ? -1 : at(plan.tokenIds, row + 1))),
  };
}

test('log-probabilities are of the raw logits, row after row', async (t) => {
  const runner = await openRunner(t);
  const logits = await logitsOf(runner, 0);
  const logSoftmax = (token: number): number[] => {
    const row = [...(logits[token] as Float32Array)];
    const largest = Math.max(...row);
    const total = row.reduce((sum, x) => sum + Math.exp(x - largest), 0);
    return row.map((x) => x - largest - Math.log(total));
  };
  const check = (result: StepResult, rows: readonly { after: number; token: number; n: number }[], name: string) => {
    let offset = 0;
    for (const [i, { after, token, n }] of rows.entries()) {
      const expected = logSoftmax(after);
      const order = expected.map((_, id) => id).slice(0, sampleVocabSize);
      order.sort((a, b) => at(expected, b) - at(expected, a) || a - b);
      const ids = [...result.logprobIds.subarray(offset, offset + 1 + n)];
      t.same(ids, [token, ...order.slice(0, n)], `${name}, row ${i}: ids`);
      const misses = ids.filter((id, j) => Math.abs(at(expected, id) - at(result.logprobs, offset + j)) > 2e-6 * 10);
      t.same(misses, [], `${name}, row ${i}: values`);
      t.equal(result.logprobRanks[i], order.indexOf(token) + 1, `${name}, row ${i}: rank`);
      offset += 1 + n;
    }
    t.equal(result.logprobIds.length, offset, `${name}: no more than that`);
    t.equal(result.logprobRanks.length, rows.length);
  };

  const sampled = await submit(runner, { ...samplePlan, step: 1 });
  const wanted = mixed.flatMap(({ prompt, output = [], params }, i) => {
    const n = params?.numLogprobs ?? -1;
    const after = [...prompt, ...output].at(-1) as number;
    return n < 0 ? [] : [{ after, token: at(sampled.tokenIds, i), n: Math.min(n, sampleVocabSize) }];
  });
  check(sampled, wanted, 'sampled');

  const plan = promptPlan(2, mixed, 7);
  const result = await submit(runner, plan);
  let numSampled = 0;
  const rows = Array.from(plan.tokenIds, (after, row) => {
    const target = at(plan.logitRowTargets, row);
    return target < 0 ? { after, token: at(result.tokenIds, numSampled++), n: 2 } : { after, token: target, n: 7 };
  });
  check(result, rows, 'prompts');
  const without = await submit(runner, admitPlan(3, [{ prompt: [1] }]));
  t.same([without.logprobIds.length, without.logprobs.length, without.logprobRanks.length], [0, 0, 0]);
});

test('two ranks give the bits of one', async (t) => {
  const runner = await openRunner(t);
  const ranks = await openTwoRanks(t);
  const lengths = mixed.map(({ prompt, output = [] }) => prompt.length + output.length);
  const decodes = [1, 2, 3, 4, 5, 6].map((step) =>
    decodePlan(
      step,
      lengths.map((length) => length + step - 1),
    ),
  );
  for (const plan of [samplePlan, ...decodes, promptPlan(7, mixed, 20)]) {
    const expected = await submit(runner, plan);
    const [first, second] = (await Promise.all(ranks.map((rank) => submit(rank, plan)))) as [StepResult, StepResult];
    t.same(first.tokenIds, expected.tokenIds, `step ${plan.step}: tokens`);
    t.same(second.tokenIds, expected.tokenIds, 'on the second rank too');
    t.same(first.logprobIds, expected.logprobIds, 'ids');
    t.same(first.logprobRanks, expected.logprobRanks, 'ranks');
    t.ok(expected.logprobs.length > 0 && sameBits(first.logprobs, expected.logprobs), 'log-probabilities');
    t.equal(second.logprobs.length, 0, 'which the second rank leaves to the first');
  }
});

test('seed and sample index choose the draw, with edits and filters too', async (t) => {
  const runner = await openRunner(t);
  const params = { temperature: 1.5, topP: 0.95, presencePenalty: 0.5, badWords: [[13]], seed: 1n };
  const sequences = (change: object): Admitted[] => {
    // The same sequence in every slot: only the address determines a draw.
    return Array.from({ length: 20 }, (_, i) => ({ prompt: [12], output: [1, 12].slice(0, i % 2), params: { ...params, ...change } }));
  };
  const draws: string[] = [];
  for (const [step, change] of [{}, {}, { seed: 2n }, { seed: 1n + 2n ** 32n }, { sampleIndex: 1 }].entries()) {
    const { tokenIds } = await submit(runner, admitPlan(step, sequences(change)));
    const [even, odd] = [0, 1].map((parity) => new Set([...tokenIds].filter((_, i) => i % 2 === parity)).size);
    t.same([even, odd], [1, 1], 'one draw for one address');
    draws.push(tokenIds.slice(0, 2).join());
  }
  t.equal(draws[0], draws[1]);
  t.ok(new Set(draws).size >= 3, `seeds and indices differ: ${draws}`);
});

test('a row of which nothing may be drawn fails the step', async (t) => {
  for (const params of [
    { allowedTokenIds: [7], badWords: [[7]] },
    { allowedTokenIds: [7], minTokens: 1, stopTokenIds: [7], temperature: 1, topK: 3 },
    { allowedTokenIds: [sampleVocabSize] },
  ]) {
    const runner = await openRunner(t);
    const plan = admitPlan(0, [{ prompt: [1], params }]);
    await t.rejects(submit(runner, plan), { code: 'ERR_CHECKPOINT', message: /its bans leave none/ }, JSON.stringify(params));
  }
});

test('a plan without what its parameters look back on is refused', async (t) => {
  const { admitLists, ...plan } = admitPlan(0, [{ prompt: [1, 2], params: { presencePenalty: 1 } }]);
  const { admitLists: others } = admitPlan(0, [{ prompt: [1], params: { presencePenalty: 1 } }]);
  const { admitLists: tooMany } = admitPlan(0, [{ prompt: [1, 2, 3] }]);
  for (const lists of [
    { ...admitLists, history: others.history },
    { ...admitLists, history: tooMany.history },
  ]) {
    const runner = await openRunner(t);
    await t.rejects(submit(runner, { ...plan, admitLists: lists }), { code: 'ERR_PLAN', message: /a history of 2 tokens/ });
  }
  const runner = await openRunner(t);
  const unasked = { ...admitPlan(0, [{ prompt: [1] }]), logitRowKinds: Int32Array.of(2), logitRowTargets: Int32Array.of(3) };
  await t.rejects(submit(runner, unasked), { code: 'ERR_PLAN', message: /a slot with prompt log-probabilities/ });
});
