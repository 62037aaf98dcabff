/** Programs: what each rank reads and holds, and mistakes in a model definition that recording refuses. */
import { test } from 'tap';
import { buildProgram, kvBytesPerBlock, type ProgramOptions, partition, readModel, shardReport } from '../../../rank/model/index.ts';
import { Program, type ProgramFrame } from '../../../rank/model/program.ts';
import type { Tensor } from '../../../rank/model/weights.ts';
import type { ProgramSpec, TensorSlice } from '../../../rank/program-spec.ts';
import { goldenNames, goldenPath } from '../../helpers/goldens.ts';

const options: Omit<ProgramOptions, 'rank' | 'worldSize'> = {
  dtype: 'bfloat16',
  kvCacheDtype: 'int8',
  quantization: 'none',
  blockSize: 64,
  numBlocks: 5,
  maxModelLen: 128,
  maxNumSeqs: 3,
  maxNumBatchedTokens: 48,
  maxNumLogitRows: 7,
  sampleVocabSize: 250,
};

const build = (name: string, worldSize: number): ProgramSpec[] => {
  const model = readModel(goldenPath(name));
  return Array.from({ length: worldSize }, (_, rank) => buildProgram(model, { ...options, rank, worldSize }));
};

function slicesOf(program: ProgramSpec): TensorSlice[] {
  return program.weights.flatMap((weight) => (weight.kind === 'table' ? [weight.slice] : weight.pieces));
}

test('what is not recorded', async (t) => {
  const [program] = build('odd-vocab-fp32', 1) as [ProgramSpec];
  const { files, weights, values, ops, ropes, ...frame } = program;
  t.same(frame, {
    dtype: 'bfloat16',
    vocabSize: 251,
    sampleVocabSize: 250,
    hiddenSize: 64,
    kv: { numLayers: 2, numBlocks: 5, blockSize: 64, numKvHeads: 4, headDim: 8, dtype: 'int8' },
    maxNumSeqs: 3,
    maxNumBatchedTokens: 48,
    maxNumLogitRows: 7,
    maxModelLen: 128,
  });
});

test('two all-reduces a layer, and no other communication before sampling', async (t) => {
  const [program] = build('qwen3-head-dim-bf16', 2) as [ProgramSpec];
  const layer = ['rmsNorm', 'linear', 'headNorm', 'ropeAndStore', 'pagedAttention', 'linear', 'allReduce', 'add'];
  const mlp = ['rmsNorm', 'linear', 'siluMul', 'linear', 'allReduce', 'add'];
  t.same(
    program.ops.map(({ op }) => op),
    ['embedding', ...layer, ...mlp, ...layer, ...mlp, 'hiddenStates', 'gatherRows', 'rmsNorm', 'linear', 'sample'],
  );
});

test('ranks read each weight once, and only their own slices', async (t) => {
  for (const name of goldenNames) {
    for (const worldSize of [1, 2, 3]) {
      const programs = build(name, worldSize);
      const read = new Map<string, { elements: number; whole: number }>();
      for (const slice of programs.flatMap(slicesOf)) {
        const entry = read.get(slice.name) ?? { elements: 0, whole: 0 };
        entry.elements += (slice.rowEnd - slice.rowBegin) * (slice.colEnd - slice.colBegin);
        entry.whole = Math.max(entry.whole, slice.rowEnd * slice.colEnd);
        read.set(slice.name, entry);
      }
      const tied = ![...read.keys()].some((tensor) => tensor.endsWith('lm_head.weight'));
      for (const [tensor, { elements, whole }] of read) {
        const shared = /norm|[od]\w*_proj\.bias/.test(tensor) && !/gate|up/.test(tensor);
        const copies = shared ? worldSize : tensor.endsWith('embed_tokens.weight') && tied ? 2 : 1;
        // Two ranks read the same KV head only if its group is split.
        if (/[kv]_proj/.test(tensor)) t.ok(elements >= whole && elements < 2 * whole, `${name} ${worldSize}: ${tensor}`);
        else t.equal(elements, copies * whole, `${name} ${worldSize}: ${tensor}`);
      }
    }
  }
});

test('row-parallel weights carry their chunks', async (t) => {
  const programs = build('smollm-nine-heads-bf16', 2);
  const chunks = programs.map((program) =>
    program.weights
      .filter((weight) => weight.kind === 'linear')
      .map(({ firstChunk, numChunks, chunkEdges }) => [firstChunk, numChunks, chunkEdges]),
  );
  // qkv, o, gate and up, down
  t.same(chunks[0]?.slice(0, 4), [
    [0, 1, [0, 72]],
    [0, 9, [0, 8, 16, 24, 32]],
    [0, 1, [0, 72]],
    [0, 9, [0, 16, 32, 48, 64]],
  ]);
  t.same(chunks[1]?.slice(0, 4), [
    [0, 1, [0, 72]],
    [4, 9, [0, 8, 16, 24, 32, 40]],
    [0, 1, [0, 72]],
    [4, 9, [0, 16, 32, 48, 64, 80]],
  ]);
});

test('heads and their places in qkv', async (t) => {
  const heads = build('smollm-nine-heads-bf16', 2).map((program) => program.ops.find((op) => op.op === 'ropeAndStore')?.heads);
  const shared = { headDim: 8, groupSize: 3, qOffset: 0 };
  // The group of KV head 1 is split after query head 3, so both ranks hold KV head 1.
  t.same(heads[0], { ...shared, firstHead: 0, numHeads: 4, firstKvHead: 0, numKvHeads: 2, kOffset: 32, vOffset: 64 });
  t.same(heads[1], { ...shared, firstHead: 4, numHeads: 5, firstKvHead: 1, numKvHeads: 2, kOffset: 64, vOffset: 96 });
});

test('sizes that are reported', async (t) => {
  const model = readModel(goldenPath('smollm-nine-heads-bf16'));
  t.same(shardReport(model, { rank: 1, worldSize: 2 }), {
    rank: 1,
    heads: [4, 9],
    kvHeads: [1, 3],
    mlpColumns: [64, 144],
    vocabRows: [128, 256],
  });
  // layers · KV heads · tokens · (K and V) · padded head · bytes
  t.equal(kvBytesPerBlock(model.config, partition(model.config, 1, 2), 32, 'float32'), 2 * 2 * 32 * 2 * 16 * 4);
  t.equal(kvBytesPerBlock(model.config, partition(model.config, 0, 1), 64, 'bfloat16'), 2 * 3 * 64 * 2 * 16 * 2);
  t.equal(kvBytesPerBlock(model.config, partition(model.config, 0, 1), 64, 'int8'), 2 * 3 * 64 * 2 * (16 + 4));
  const { headDim } = model.config;
  t.equal(kvBytesPerBlock(model.config, partition(model.config, 0, 1), 64, 'bfloat16', 'cuda'), 2 * 3 * 64 * 2 * headDim * 2);
});

test('quantization: every matrix takes it, an LM head int8 at least, and an embedding none', async (t) => {
  const formats = { none: ['bfloat16', 'bfloat16'], int8: ['int8', 'int8'], int4: ['int4', 'int8'] } as const;
  for (const name of ['llama-gqa-tied-bf16', 'qwen2-fp8-block-mixed']) {
    const model = readModel(goldenPath(name));
    for (const [quantization, [layers, head]] of Object.entries(formats)) {
      const program = buildProgram(model, { ...options, quantization: quantization as keyof typeof formats, rank: 0, worldSize: 1 });
      const linears = program.weights.flatMap((weight) => (weight.kind === 'linear' ? [weight] : []));
      const last = linears.pop();
      t.equal(last?.pieces[0]?.name, model.tensors.lmHead.name);
      const isKept = quantization === 'none' && name.includes('fp8');
      t.equal(last?.format, isKept ? 'fp8' : head, `${name}, ${quantization}: LM head`);
      t.equal(linears.length, 4 * model.config.numHiddenLayers);
      if (quantization !== 'none')
        t.ok(
          linears.every(({ format }) => format === layers),
          `${name}, ${quantization}: layers`,
        );
      const tables = program.weights.flatMap((weight) => (weight.kind === 'table' ? [weight.dtype] : []));
      t.same(tables, [model.tensors.embedTokens.dtype], `${name}, ${quantization}: embedding`);
    }
  }
});

test('what a model does not allow', async (t) => {
  const model = readModel(goldenPath('llama-mha-fp32'));
  t.throws(() => buildProgram(model, { ...options, rank: 0, worldSize: 9 }), { code: 'ERR_TOO_MANY_RANKS', message: /at most 8 ranks/ });
});

test('recording refuses shapes that do not fit', async (t) => {
  const p = new Program({} as ProgramFrame, 'none');
  const tensor = (numRows: number, numCols: number): Tensor => ({
    name: `${numRows}x${numCols}`,
    path: 'file',
    byteOffset: 0,
    dtype: 'float32',
    fp8: null,
    integers: null,
    numRows,
    numCols,
  });
  const whole = (k: number) => ({ edges: [0, k], first: 0, total: 1, all: null });
  const internal = { code: 'ERR_INTERNAL' };
  const hidden = p.embedding(p.table({ tensor: tensor(40, 64) }, 0));
  const norm = p.vector({ tensor: tensor(1, 64) });
  const normed = p.rmsNorm(hidden, norm, 1e-6);
  const square = p.matrix([{ tensor: tensor(64, 64) }], whole(64));
  const partial = p.partialLinear(normed, square);
  const heads = {
    headDim: 16,
    firstHead: 0,
    numHeads: 2,
    firstKvHead: 0,
    numKvHeads: 1,
    groupSize: 2,
    qOffset: 0,
    kOffset: 32,
    vOffset: 48,
  };

  t.throws(() => p.vector({ tensor: tensor(1, 64), cols: [32, 65] }), internal, 'columns past the end');
  t.throws(() => p.table({ tensor: tensor(40, 64), rows: [3, 2] }, 3), internal, 'rows backwards');
  t.throws(() => p.matrix([{ tensor: tensor(64, 64) }], whole(32)), internal, 'chunks that leave columns out');
  t.throws(() => p.rmsNorm(normed, norm, 1e-6), internal, 'a norm of an activation');
  t.throws(() => p.rmsNorm(hidden, p.vector({ tensor: tensor(1, 32) }), 1e-6), internal, 'a short norm weight');
  t.throws(() => p.linear(hidden, square, null), internal, 'a product of fp32');
  t.throws(() => p.linear(normed, p.matrix([{ tensor: tensor(64, 32) }], whole(32)), null), internal, 'a product with too few columns');
  t.throws(() => p.linear(normed, square, p.vector({ tensor: tensor(1, 32) })), internal, 'a short bias');
  t.throws(() => p.add(hidden, partial), internal, 'partial sums taken for whole ones');
  t.throws(() => p.allReduce(hidden, null), internal, 'a whole sum summed again');
  t.throws(() => p.ropeAndStore(hidden, heads, 0, 0), internal, 'a rope that is not there');
  t.throws(
    () =>
      p.ropeAndStore(
        hidden,
        { ...heads, vOffset: 64 },
        p.rope({ invFreq: new Float32Array(8), scale: 1, queryScales: new Float32Array(0), queryLength: 1 }),
        0,
      ),
    internal,
    'heads past the end',
  );
  t.throws(() => p.pagedAttention(normed, heads, 0, 0), internal, 'queries of other heads');
  t.throws(() => p.siluMul(hidden, 40, 32), internal, 'gate and up that overlap');
  t.throws(() => p.sample(hidden, [0, 64]), internal, 'logits of every token of the step');
  t.throws(() => p.gatherRows(p.gatherRows(hidden)), internal, 'rows gathered twice');
  t.throws(() => p.hiddenStates(p.gatherRows(hidden), p.vector({ tensor: tensor(1, 64) }), 1e-5), internal, 'hidden states of logit rows');

  t.same(
    p.matrix([{ tensor: tensor(40, 64) }, { tensor: tensor(40, 64), rows: [8, 18] }], whole(64)).offsets,
    [0, 64],
    'pieces begin on whole panels',
  );
  t.equal(p.allReduce(partial, null).width, 64);
});
