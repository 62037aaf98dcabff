/** A model of a few operators for the runner alone: token i is followed by i + 1, modulo the vocabulary. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noLists } from '../../protocol/admit-lists.ts';
import { packPlan, type StepPlan } from '../../protocol/step-plan.ts';
import { viewResult } from '../../protocol/step-result.ts';
import type { Runner } from '../../rank/native.ts';
import type { ProgramSpec, TensorSlice, WeightFormat } from '../../rank/program-spec.ts';

interface TestContext {
  teardown(handler: () => void): unknown;
}

export const vocabSize = 40;
const hiddenSize = 32;

/**
 * Embedding → norm → LM head, whose row of token i + 1 is the embedding of token i. Logits are proportional to `scale`.
 */
export function nextTokenProgram(t: TestContext, scale = 1): ProgramSpec {
  const folder = mkdtempSync(join(tmpdir(), 'nds-runner-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'weights.bin');
  const table = Float32Array.from({ length: vocabSize * hiddenSize }, (_, i) =>
    Math.sin(1 + Math.floor(i / hiddenSize) * 7.3 + (i % hiddenSize) ** 2),
  );
  const head = new Float32Array(vocabSize * hiddenSize);
  for (let id = 0; id < vocabSize; id++)
    head.set(table.subarray(id * hiddenSize, (id + 1) * hiddenSize), ((id + 1) % vocabSize) * hiddenSize);
  const norm = new Float32Array(hiddenSize).fill(scale);
  writeFileSync(file, new Uint8Array(Float32Array.from([...table, ...head, ...norm]).buffer));
  const slice = (name: string, offset: number, rows: number): TensorSlice => ({
    name,
    file: 0,
    byteOffset: offset * 4,
    dtype: 'float32',
    fp8: null,
    integers: null,
    numCols: hiddenSize,
    rowBegin: 0,
    rowEnd: rows,
    colBegin: 0,
    colEnd: hiddenSize,
  });
  return {
    files: [file],
    weights: [
      { kind: 'table', slice: slice('table', 0, vocabSize), dtype: 'float32', firstRow: 0 },
      { kind: 'vector', pieces: [slice('norm', table.length * 2, 1)] },
      {
        kind: 'linear',
        pieces: [slice('head', table.length, vocabSize)],
        format: 'float32',
        codes: null,
        chunkEdges: [0, 16, 32],
        firstChunk: 0,
        numChunks: 2,
      },
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
    kv: { numLayers: 1, numBlocks: 4, blockSize: 32, numKvHeads: 1, headDim: 8, dtype: 'float32' },
    maxNumSeqs: 2,
    maxNumBatchedTokens: 48,
    maxNumLogitRows: 8,
    maxModelLen: 64,
  };
}

/** The same with the LM head in another format. */
export const withFormat = (program: ProgramSpec, format: WeightFormat): ProgramSpec => ({
  ...program,
  weights: program.weights.map((weight) => (weight.kind === 'linear' ? { ...weight, format } : weight)),
});

/** The same model on rank `rank` of two; rank 0 has the tokens below 32. */
export function nextTokenShare(t: TestContext, rank: number, scale = 1): ProgramSpec {
  const program = nextTokenProgram(t, scale);
  const [rowBegin, rowEnd] = rank === 0 ? [0, 32] : [32, vocabSize];
  return {
    ...program,
    weights: program.weights.map((weight) => {
      if (weight.kind === 'table') return { ...weight, slice: { ...weight.slice, rowBegin, rowEnd }, firstRow: rowBegin };
      return weight.kind === 'linear' ? { ...weight, pieces: weight.pieces.map((piece) => ({ ...piece, rowBegin, rowEnd })) } : weight;
    }),
    values: program.values.with(3, { rows: 'logitRows', width: rowEnd - rowBegin, type: 'fp32' }),
    ops: program.ops.with(4, { op: 'sample', logits: 3, firstTokenId: rowBegin, numTokenIds: rowEnd - rowBegin }),
  };
}

/** Admits slot 0 and prefills three tokens. */
export const goodPlan: StepPlan = {
  step: 0,
  slots: Int32Array.of(0),
  tokenIds: Int32Array.of(5, 6, 7),
  cuQueryLens: Int32Array.of(0, 3),
  contextLens: Int32Array.of(3),
  blockCopies: new Int32Array(0),
  blockTables: Int32Array.of(2),
  cuBlocks: Int32Array.of(0, 1),
  numDrafts: new Int32Array(0),
  draft: null,
  logitRows: Int32Array.of(2),
  logitRowKinds: Int32Array.of(0),
  logitRowTargets: new Int32Array(0),
  hiddenRows: new Int32Array(0),
  admitSlots: Int32Array.of(0),
  admitLens: Int32Array.of(0),
  admitFloats: Float32Array.of(0, 1, 0, 0, 0, 1),
  admitInts: Int32Array.of(0, 0, 3, 0, -1, -1, 0),
  admitSeeds: Uint32Array.of(1, 2),
  admitLists: noLists,
};

/** Runs one plan. */
export async function submit(runner: Runner, plan: StepPlan) {
  const { directory, bytes } = packPlan(plan);
  const result = await runner.submit(plan.step, directory, bytes);
  return viewResult(result.directory, result.bytes);
}
