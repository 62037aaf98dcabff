/** Checkpoints of 8-bit floats, which stay in eight bits: the logits and tokens of those that become bfloat16. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'tap';
import { LLM } from '../../rank/index.ts';
import { buildProgram, cpuPackedBytes, type Model, readModel } from '../../rank/model/index.ts';
import { type HeaderEntry, readWeights, replaceTensors } from '../helpers/checkpoint-edits.ts';
import { type Answer, type Call, logitsOf, type Session, SharedJob } from '../helpers/gang.ts';
import { goldenPath, readGolden, relativeError } from '../helpers/goldens.ts';

/** Matrices that stay in eight bits, and those that become bfloat16. */
const goldens = {
  'qwen3-fp8-block': { numKept: 14, expanded: [] },
  'qwen2-fp8-block-mixed': { numKept: 2, expanded: [/q_proj.*not stored as/, /v_proj/, /o_proj.*multiples of four/, /gate_proj/] },
  'mistral-fp8-tensor': { numKept: 14, expanded: [] },
  'llama-fp8-channel-mixed': { numKept: 9, expanded: [/1.*q_proj.*not stored as/, /1.*v_proj/, /1.*gate_proj/] },
  'llama-fp8-compressed-tensor': { numKept: 7, expanded: [] },
} as const;
const names = Object.keys(goldens) as (keyof typeof goldens)[];

const options = { device: 'cpu', numThreads: 1, maxNumBatchedTokens: 64 } as const;

test('which matrices stay in eight bits', async (t) => {
  for (const name of names) {
    const { integers } = readModel(goldenPath(name));
    const { numKept, expanded } = goldens[name];
    t.same(integers.numKept, { int8: 0, int8_zero: 0, int4: 0, int4_zero: 0, fp8: numKept }, name);
    t.equal(integers.expanded.length, expanded.length, name);
    integers.expanded.forEach(({ name: matrix, reason }, i) => {
      t.match(`${matrix} ${reason}`, expanded[i], name);
    });
  }
});

function callsOf(name: string): readonly Call[] {
  const prompt = readGolden(name).prompts[3] as readonly number[];
  return [
    { type: 'logits', promptTokenIds: prompt },
    {
      type: 'generate',
      prompt: { promptTokenIds: prompt.slice(0, 9) },
      params: { temperature: 1, seed: 5, maxTokens: 20, ignoreEos: true },
    },
    { type: 'generate', prompt: { promptTokenIds: prompt.slice(0, 3) }, params: { temperature: 0, maxTokens: 20, ignoreEos: true } },
  ];
}

const expectedOf = new Map<string, readonly Answer[]>();
for (const worldSize of [1, 2, 4]) {
  const job = new SharedJob(worldSize);
  for (const name of names) {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const sessions = (['expand', 'none'] as const).map(
        (quantization): Session => ({ model: goldenPath(name), options: { ...options, dtype, quantization }, rounds: [callsOf(name)] }),
      );
      const run = job.add(sessions);
      test(`${name}, ${dtype} activations, ${worldSize} ranks: the answers of bfloat16 weights on one rank`, async (t) => {
        const [expand, kept] = (await run()).sessions;
        const what = `${name} ${dtype}`;
        if (worldSize === 1) expectedOf.set(what, expand as readonly Answer[]);
        t.same(kept, expectedOf.get(what), 'kept');
        t.same(expand, expectedOf.get(what), 'expanded');
        if (dtype === 'bfloat16') return;
        t.ok(relativeError(logitsOf(kept?.[0]), readGolden(name).logits[3] as Float32Array) < 2e-4, 'logits of transformers');
      });
    }
  }
}

test('they take half of the bytes', async (t) => {
  const model = readModel(goldenPath('qwen3-fp8-block'));
  const packedBytes = (quantization: 'none' | 'expand') => cpuPackedBytes(programOf(model, quantization));
  // A scale for each 128 inputs, the LM head in bfloat16, and chunks of sixteen inputs, whose scales weigh as much as eight of them.
  t.ok(packedBytes('none') / packedBytes('expand') < 0.8, `${packedBytes('none')} of ${packedBytes('expand')}`);
});

function programOf(model: Model, quantization: 'none' | 'expand') {
  const limits = { blockSize: 32, numBlocks: 4, maxModelLen: 128, maxNumSeqs: 1, maxNumBatchedTokens: 128, maxNumLogitRows: 128 };
  const types = { dtype: 'float32', kvCacheDtype: 'float32', quantization } as const;
  return buildProgram(model, { rank: 0, worldSize: 1, ...types, ...limits, sampleVocabSize: model.config.vocabSize });
}

test('a scale beyond the range is refused, with what loads it', async (t) => {
  const folder = join(t.testdir({}), 'model');
  cpSync(goldenPath('qwen3-fp8-block'), folder, { recursive: true });
  const { header, data } = readWeights(folder);
  const name = 'model.layers.0.mlp.down_proj.weight_scale_inv';
  const { dtype, shape, data_offsets } = header[name] as HeaderEntry;
  const bytes = Uint8Array.from(data.subarray(...(data_offsets as [number, number])));
  bytes.set(new Uint8Array(Float32Array.of(2 ** 90).buffer).subarray(dtype === 'BF16' ? 2 : 0), 0);
  replaceTensors(folder, { [name]: { dtype, shape, bytes } });
  await t.rejects(LLM.load(folder, options), {
    code: 'ERR_CHECKPOINT',
    message: /from 2\^-100 to 2\^7 for tensor model\.layers\.0\.mlp\.down_proj\.weight .*'expand'/,
  });
  const llm = await LLM.load(folder, { ...options, quantization: 'expand' });
  t.equal(llm.quantizedMatrices, null);
  await llm.close();
});

test('a load says which matrices stay in eight bits', async (t) => {
  const llm = await LLM.load(goldenPath('qwen3-fp8-block'), options);
  t.match(llm.quantizedMatrices, { numKept: { fp8: 14 }, expanded: [] });
  await llm.close();
});
