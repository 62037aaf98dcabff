/** The native runner alone: a program of five operators, good plans, and every kind of bad plan. */
import { readFileSync, writeFileSync } from 'node:fs';
import { type Test, test } from 'tap';
import { noLists, toRagged } from '../../protocol/admit-lists.ts';
import { packPlan, type StepPlan } from '../../protocol/step-plan.ts';
import { native, type Runner } from '../../rank/native.ts';
import type { ProgramSpec, TensorSlice } from '../../rank/program-spec.ts';
import { goodPlan, nextTokenProgram, submit, vocabSize, withFormat } from '../helpers/next-token.ts';

const alone = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 1, shmFd: -1, startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 };

const noAdmission = {
  admitSlots: new Int32Array(0),
  admitLens: new Int32Array(0),
  admitFloats: new Float32Array(0),
  admitInts: new Int32Array(0),
  admitSeeds: new Uint32Array(0),
};

async function openRunner(t: Test, program = nextTokenProgram(t)): Promise<Runner> {
  const runner = native().createRunner({ ...alone, numThreads: 2 });
  t.teardown(() => runner.close());
  await runner.load(program);
  return runner;
}

test('a slot keeps its newest token between steps', async (t) => {
  const runner = await openRunner(t);
  const first = await submit(runner, goodPlan);
  t.same([...first.tokenIds], [8]);
  const second = await submit(runner, {
    ...goodPlan,
    ...noAdmission,
    step: 1,
    tokenIds: Int32Array.of(-1),
    cuQueryLens: Int32Array.of(0, 1),
    contextLens: Int32Array.of(4),
    logitRows: Int32Array.of(0),
  });
  t.same([...second.tokenIds], [9]);
  t.same([...second.numTokens], [1]);
});

test('queued steps settle in order, also before one that fails', async (t) => {
  const runner = await openRunner(t);
  const decode = (step: number): StepPlan => ({
    ...goodPlan,
    ...noAdmission,
    step,
    tokenIds: Int32Array.of(-1),
    cuQueryLens: Int32Array.of(0, 1),
    contextLens: Int32Array.of(step + 3),
    logitRows: Int32Array.of(0),
  });
  const bad = { ...decode(9), slots: Int32Array.of(99) };
  const plans = [goodPlan, ...Array.from({ length: 8 }, (_, i) => decode(i + 1)), bad, decode(10)];
  const order: (number | string)[] = [];
  await Promise.all(
    plans.map(async (plan) => {
      try {
        order.push(...(await submit(runner, plan)).tokenIds);
      } catch (error) {
        order.push((error as { code: string }).code);
      }
    }),
  );
  t.same(order, [8, 9, 10, 11, 12, 13, 14, 15, 16, 'ERR_PLAN', 'ERR_PLAN']);
});

test('rows that are asked for come back whole', async (t) => {
  const runner = await openRunner(t);
  const result = await submit(runner, { ...goodPlan, logitRows: Int32Array.of(0, 1), logitRowKinds: Int32Array.of(1, 1) });
  t.equal(result.logits.length, 2 * vocabSize);
  t.same([...result.numTokens], [0]);
  const best = (row: Float32Array) => row.indexOf(Math.max(...row));
  t.equal(best(result.logits.subarray(0, vocabSize)), 6);
  t.equal(best(result.logits.subarray(vocabSize)), 7);
});

const badPlans: Record<string, Partial<StepPlan>> = {
  'a slot past the last': { slots: Int32Array.of(2), admitSlots: Int32Array.of(2) },
  'a negative slot': { slots: Int32Array.of(-1) },
  'a slot that was never admitted': { slots: Int32Array.of(1) },
  'a slot twice': {
    slots: Int32Array.of(0, 0),
    cuQueryLens: Int32Array.of(0, 1, 3),
    contextLens: Int32Array.of(1, 2),
    cuBlocks: Int32Array.of(0, 1, 1),
  },
  'a block past the last': { blockTables: Int32Array.of(4) },
  'a negative block': { blockTables: Int32Array.of(-1) },
  'too few blocks': { cuBlocks: Int32Array.of(0, 0) },
  'block tables that end before cuBlocks': { cuBlocks: Int32Array.of(0, 2) },
  'a token past the vocabulary': { tokenIds: Int32Array.of(5, 6, vocabSize) },
  'the newest token of a slot that has none': { tokenIds: Int32Array.of(-1, 6, 7) },
  'a draft token': { tokenIds: Int32Array.of(5, 6, -2) },
  'a sequence without tokens': { cuQueryLens: Int32Array.of(0, 0) },
  'query lengths past the tokens': { cuQueryLens: Int32Array.of(0, 4), contextLens: Int32Array.of(4) },
  'a context length that is not cached + new': { contextLens: Int32Array.of(5) },
  'a cached length past the context': { admitLens: Int32Array.of(62), contextLens: Int32Array.of(65) },
  'a logit row past the tokens': { logitRows: Int32Array.of(3) },
  'a negative logit row': { logitRows: Int32Array.of(-1) },
  'a logit row twice': { logitRows: Int32Array.of(2, 2), logitRowKinds: Int32Array.of(1, 1) },
  'sampling from a row that is not the last': { logitRows: Int32Array.of(1) },
  'an unknown kind of logit row': { logitRowKinds: Int32Array.of(7) },
  'a temperature below zero': { admitFloats: Float32Array.of(-1, 1, 0, 0, 0, 1) },
  'a probability that is no number': { admitFloats: Float32Array.of(1, Number.NaN, 0, 0, 0, 1) },
  'a negative top-k': { admitInts: Int32Array.of(-3, 0, 3, 0, -1, -1, 0) },
  'a repetition penalty of zero': { admitFloats: Float32Array.of(0, 1, 0, 0, 0, 0) },
  'an allowed token past the vocabulary': { admitLists: { ...noLists, allowed: toRagged([[vocabSize]]) } },
  'lists for more slots than are admitted': { admitLists: { ...noLists, history: toRagged([[1], [2]]) } },
  'lists whose offsets descend': { admitLists: { ...noLists, stops: { values: Int32Array.of(1), offsets: Int32Array.of(1, 0) } } },
  'an endless bias': { admitLists: { ...noLists, bias: toRagged([[1]]), biasValues: Float32Array.of(Number.POSITIVE_INFINITY) } },
  'a bias without a value': { admitLists: { ...noLists, bias: toRagged([[1]]) } },
  'a bad word without tokens': {
    admitLists: { ...noLists, badWords: { values: Int32Array.of(1), offsets: Int32Array.of(0, 0, 1) }, cuBadWords: Int32Array.of(0, 2) },
  },
  'a bad word of no slot': { admitLists: { ...noLists, badWords: toRagged([[1]]), cuBadWords: Int32Array.of(0, 2) } },
  'a log-probability without a token': { logitRowKinds: Int32Array.of(2) },
  'a log-probability of a token past the vocabulary': { logitRowKinds: Int32Array.of(2), logitRowTargets: Int32Array.of(vocabSize) },
  'a hidden state past the last token': { hiddenRows: Int32Array.of(0, goodPlan.tokenIds.length) },
  'a hidden state before the first token': { hiddenRows: Int32Array.of(-1) },
  'a hidden state twice': { hiddenRows: Int32Array.of(0, 0) },
  'a block to copy past the last': { blockCopies: Int32Array.of(4, 1) },
  'a block to copy to past the last': { blockCopies: Int32Array.of(1, 4) },
  'a negative block to copy': { blockCopies: Int32Array.of(0, 1, -1, 1) },
  'a block copied to itself': { blockCopies: Int32Array.of(0, 1, 1, 1) },
  'half a pair of blocks to copy': { blockCopies: Int32Array.of(0, 1, 2) },
  'admission arrays of different lengths': { admitLens: Int32Array.of(0, 0) },
};

test('a bad plan is refused before anything runs', async (t) => {
  const program = nextTokenProgram(t);
  for (const [name, change] of Object.entries(badPlans)) {
    const runner = await openRunner(t, program);
    await t.rejects(submit(runner, { ...goodPlan, ...change }), { code: 'ERR_PLAN' }, name);
    // A rank that refused a step is no longer in step with the others, so it refuses all further ones.
    await t.rejects(submit(runner, goodPlan), { code: 'ERR_PLAN' }, `${name}, and then a good one`);
    await runner.close();
  }
});

test('a plan whose sections are not what they claim is refused', async (t) => {
  const program = nextTokenProgram(t);
  const { directory, bytes } = packPlan(goodPlan);
  const changed = (index: number, value: number) => {
    const copy = directory.slice();
    copy[index] = value;
    return copy;
  };
  const cases: Record<string, Int32Array> = {
    'an unknown section': changed(0, 99),
    'a section twice': changed(3, 1),
    'an offset past the end': changed(1, bytes.length + 64),
    'a misaligned offset': changed(4, 68),
    'a length past the end': changed(5, bytes.length + 4),
    'a negative length': changed(5, -4),
    'a length that is no multiple of the element': changed(5, 7),
    'a missing section': directory.slice(3),
    'half a triple': directory.slice(1),
  };
  for (const [name, bad] of Object.entries(cases)) {
    const runner = await openRunner(t, program);
    await t.rejects(runner.submit(0, bad, bytes), { code: 'ERR_PROTOCOL' }, name);
    await runner.close();
  }
});

test('a runner takes one model, and none after it was closed', async (t) => {
  const program = nextTokenProgram(t);
  const runner = await openRunner(t, program);
  await t.rejects(runner.load(program), { code: 'ERR_USAGE' });
  await runner.close();
  await t.rejects(runner.load(program), { code: 'ERR_CLOSED' });
  await t.rejects(submit(runner, goodPlan), { code: 'ERR_CLOSED' });
});

test('a weight past the end of its file is refused by name', async (t) => {
  const program = nextTokenProgram(t);
  const weights = program.weights.map((weight) =>
    weight.kind === 'vector'
      ? { ...weight, pieces: weight.pieces.map((piece) => ({ ...piece, byteOffset: piece.byteOffset + 64 })) }
      : weight,
  );
  const runner = native().createRunner({ ...alone, numThreads: 1 });
  await t.rejects(runner.load({ ...program, weights }), { code: 'ERR_CHECKPOINT', message: /norm/ });
  await runner.close();
});

test('a quantized matrix takes its bytes and finds a next token', async (t) => {
  const program = nextTokenProgram(t);
  // Two panels of two chunks of 16 inputs: a tile and the scales of its group, and multipliers of int4.
  for (const [format, bytes] of [
    ['int8', 2 * 2 * (1024 + 64)],
    ['int4', 2 * 2 * (512 + 64 + 32)],
  ] as const) {
    const runner = native().createRunner({ ...alone, numThreads: 2 });
    const [{ weightBytes: exact }, { weightBytes }] = [await report(program), await runner.load(withFormat(program, format))];
    t.equal(weightBytes - bytes, exact - 2 * 2 * 16 * 128, `${format}: bytes of weights`);
    // The best tokens are 1 % apart: four bits find one of them.
    const [next] = (await submit(runner, goodPlan)).tokenIds;
    t.ok((format === 'int8' ? [8] : [8, 39, 14, 2]).includes(next as number), `${format}: ${next}`);
    await runner.close();
  }
});

async function report(program: ProgramSpec) {
  const runner = native().createRunner({ ...alone, numThreads: 1 });
  const loaded = await runner.load(program);
  await runner.close();
  return loaded;
}

test('a weight that a quantized format cannot hold is refused by name', async (t) => {
  const program = nextTokenProgram(t);
  const [file = ''] = program.files;
  const bytes = readFileSync(file);
  bytes.writeFloatLE(Number.NaN, (vocabSize * 32 + 777) * 4);
  writeFileSync(file, bytes);
  for (const [format, limit] of [
    ['int8', /below 32496 for int8 in tensor head/],
    ['int4', /below 30712 for int4 in tensor head/],
  ] as const) {
    const runner = native().createRunner({ ...alone, numThreads: 2 });
    await t.rejects(runner.load(withFormat(program, format)), { code: 'ERR_CHECKPOINT', message: limit });
    await runner.close();
  }
});

const notItsWidth = { rows: 'tokens', width: 64, type: 'fp32' } as const;
const badPrograms: Record<string, (good: ProgramSpec) => Partial<ProgramSpec>> = {
  'an output narrower than its matrix': ({ values }) => ({ values: values.with(3, { rows: 'logitRows', width: 32, type: 'fp32' }) }),
  'an output wider than the embedding': ({ values }) => ({ values: values.with(0, notItsWidth) }),
  'logit rows where there are token rows': ({ values }) => ({ values: values.with(1, { rows: 'tokens', width: 32, type: 'fp32' }) }),
  'an fp32 value into a product': ({ values }) => ({ values: values.with(2, { rows: 'logitRows', width: 32, type: 'fp32' }) }),
  'a matrix as an embedding': ({ ops }) => ({ ops: ops.with(0, { op: 'embedding', table: 2, out: 0 }) }),
  'a weight that does not exist': ({ ops }) => ({ ops: ops.with(0, { op: 'embedding', table: 3, out: 0 }) }),
  'a value that was never written': ({ ops }) => ({ ops: ops.slice(1) }),
  'an all-reduce of a whole sum': ({ ops, values }) => ({
    values: [...values, { rows: 'tokens', width: 32, type: 'fp32' }],
    ops: [...ops.slice(0, 1), { op: 'allReduce', x: 0, bias: null, out: 4 }, ...ops.slice(1)],
  }),
  'more logits than columns': ({ ops }) => ({
    vocabSize: 80,
    ops: ops.with(4, { op: 'sample', logits: 3, firstTokenId: 0, numTokenIds: 80 }),
  }),
  'half of the chunks of a whole sum': ({ weights }) => ({
    weights: weights.map((weight) => (weight.kind === 'linear' ? { ...weight, numChunks: 4 } : weight)),
  }),
  'part of the rows of a table': ({ weights }) => ({
    weights: weights.map((weight) => (weight.kind === 'table' ? { ...weight, slice: { ...weight.slice, colBegin: 1 } } : weight)),
  }),
  'a matrix in a type that rounds it': (good) => withFormat(good, 'bfloat16'),
  'a table in a type that rounds it': ({ weights }) => ({
    weights: weights.map((weight) => (weight.kind === 'table' ? { ...weight, dtype: 'float16' } : weight)),
  }),
  'a vector of FP8': ({ weights }) => ({
    weights: weights.map((weight) => (weight.kind === 'vector' ? { ...weight, pieces: weight.pieces.map(asFp8) } : weight)),
  }),
  'FP8 with other values than bf16': ({ weights }) => ({
    weights: weights.map((weight) =>
      weight.kind === 'table' ? { ...weight, slice: { ...asFp8(weight.slice), dtype: 'float32' } } : weight,
    ),
  }),
};

function asFp8(slice: TensorSlice): TensorSlice {
  return { ...slice, dtype: 'bfloat16', fp8: { file: 0, byteOffset: 0, dtype: 'float32', rowsPerScale: 1, colsPerScale: 64 } };
}

test('a program whose parts do not fit is refused', async (t) => {
  const good = nextTokenProgram(t);
  for (const [name, change] of Object.entries(badPrograms)) {
    const runner = native().createRunner({ ...alone, numThreads: 1 });
    await t.rejects(async () => runner.load({ ...good, ...change(good) }), { code: 'ERR_INTERNAL' }, name);
    await runner.close();
  }
});

test('a vocabulary that no rank has is refused', async (t) => {
  const runner = native().createRunner({ ...alone, numThreads: 1 });
  await t.rejects(runner.load({ ...nextTokenProgram(t), vocabSize: 41 }), { code: 'ERR_MISMATCH', message: /41/ });
  await runner.close();
});
