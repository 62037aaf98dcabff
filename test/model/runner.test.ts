/** The native runner by itself: a program of five operators, good plans, and every kind of bad one. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { packPlan, type StepPlan } from '../../protocol/step-plan.ts';
import { viewResult } from '../../protocol/step-result.ts';
import { native, type ProgramSpec, type Runner, type TensorSlice } from '../../rank/native.ts';

const vocabSize = 40;
const hiddenSize = 32;
const alone = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 1, shmFd: -1, startupTimeoutMs: 10_000, stepTimeoutMs: 10_000 };

/** Embedding → norm → LM head with the identity-like weights below: the arg-max after token i is i + 1 (modulo the vocabulary). */
function nextTokenProgram(t: Test): ProgramSpec {
  const folder = mkdtempSync(join(tmpdir(), 'nds-runner-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'weights.bin');
  const table = Float32Array.from({ length: vocabSize * hiddenSize }, (_, i) =>
    Math.sin(1 + Math.floor(i / hiddenSize) * 7.3 + (i % hiddenSize) ** 2),
  );
  const head = new Float32Array(vocabSize * hiddenSize);
  for (let id = 0; id < vocabSize; id++)
    head.set(table.subarray(id * hiddenSize, (id + 1) * hiddenSize), ((id + 1) % vocabSize) * hiddenSize);
  const norm = new Float32Array(hiddenSize).fill(1);
  writeFileSync(file, new Uint8Array(Float32Array.from([...table, ...head, ...norm]).buffer));
  const slice = (name: string, offset: number, rows: number): TensorSlice => ({
    name,
    file: 0,
    byteOffset: offset * 4,
    dtype: 'float32',
    numCols: hiddenSize,
    rowBegin: 0,
    rowEnd: rows,
    colBegin: 0,
    colEnd: hiddenSize,
  });
  return {
    files: [file],
    weights: [
      { kind: 'table', slice: slice('table', 0, vocabSize), firstRow: 0 },
      { kind: 'vector', pieces: [slice('norm', table.length * 2, 1)] },
      { kind: 'linear', pieces: [slice('head', table.length, vocabSize)], chunkEdges: [0, 16, 32], firstChunk: 0, numChunks: 2 },
    ],
    values: [
      { rows: 'tokens', width: hiddenSize, type: 'fp32' },
      { rows: 'logitRows', width: hiddenSize, type: 'fp32' },
      { rows: 'logitRows', width: hiddenSize, type: 'activation' },
      { rows: 'logitRows', width: 64, type: 'fp32' },
    ],
    ops: [
      { op: 'embedding', table: 0, out: 0 },
      { op: 'gatherRows', x: 0, out: 1 },
      { op: 'rmsNorm', x: 1, weight: 1, eps: 1e-6, out: 2 },
      { op: 'linear', x: 2, weight: 2, bias: null, partial: false, out: 3 },
      { op: 'sample', logits: 3, firstTokenId: 0, numTokenIds: vocabSize },
    ],
    ropes: [],
    dtype: 'float32',
    vocabSize,
    sampleVocabSize: vocabSize,
    hiddenSize,
    kv: { numLayers: 1, numBlocks: 4, blockSize: 32, numKvHeads: 1, headDim: 8 },
    maxNumSeqs: 2,
    maxNumBatchedTokens: 48,
    maxNumLogitRows: 8,
    maxModelLen: 64,
  };
}

/** Admits slot 0 and prefills three tokens. */
const goodPlan: StepPlan = {
  step: 0,
  slots: Int32Array.of(0),
  tokenIds: Int32Array.of(5, 6, 7),
  cuQueryLens: Int32Array.of(0, 3),
  contextLens: Int32Array.of(3),
  blockTables: [Int32Array.of(2)],
  cuBlocks: [Int32Array.of(0, 1)],
  logitRows: Int32Array.of(2),
  logitRowKinds: Int32Array.of(0),
  admitSlots: Int32Array.of(0),
  admitLens: Int32Array.of(0),
  admitFloats: Float32Array.of(0, 1, 0),
  admitInts: Int32Array.of(0, 0),
  admitSeeds: Uint32Array.of(1, 2),
};

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

async function submit(runner: Runner, plan: StepPlan) {
  const { directory, bytes } = packPlan(plan);
  const result = await runner.submit(plan.step, directory, bytes);
  return viewResult(result.directory, result.bytes);
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
    cuBlocks: [Int32Array.of(0, 1, 1)],
  },
  'a block past the last': { blockTables: [Int32Array.of(4)] },
  'a negative block': { blockTables: [Int32Array.of(-1)] },
  'too few blocks': { cuBlocks: [Int32Array.of(0, 0)] },
  'block tables that end before cuBlocks': { cuBlocks: [Int32Array.of(0, 2)] },
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
  'a temperature below zero': { admitFloats: Float32Array.of(-1, 1, 0) },
  'a probability that is no number': { admitFloats: Float32Array.of(1, Number.NaN, 0) },
  'a negative top-k': { admitInts: Int32Array.of(-3, 0) },
  'admission arrays of different lengths': { admitLens: Int32Array.of(0, 0) },
};

test('a bad plan is refused before anything runs', async (t) => {
  const program = nextTokenProgram(t);
  for (const [name, change] of Object.entries(badPlans)) {
    const runner = await openRunner(t, program);
    await t.rejects(submit(runner, { ...goodPlan, ...change }), { code: 'ERR_PLAN' }, name);
    // A rank that refused a step is out of step with the others: it takes no further one.
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
