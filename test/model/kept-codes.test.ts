/**
 * Checkpoints of integers, which stay as they are: logits against a reference in float64 that rounds activations by the same
 * groups and nothing else, and against transformers with the dequantized weights.
 */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'tap';
import { LLM } from '../../rank/index.ts';
import { buildProgram, type Model, readModel } from '../../rank/model/index.ts';
import { type HeaderEntry, readWeights, replaceTensors } from '../helpers/checkpoint-edits.ts';
import { logitsOf, runJob, type Session } from '../helpers/gang.ts';
import { goldenPath, readGolden, relativeError } from '../helpers/goldens.ts';
import { ReferenceRank, referenceRun } from '../references/run.ts';

/** Matrices of each format, of seven in all, and those that become bfloat16. */
const goldens = {
  'qwen3-int4-compressed': { numKept: { int8_zero: 3, int4: 4 }, expanded: null },
  'llama-int4-compressed-zero': { numKept: { int4_zero: 5 }, expanded: /(o|down)_proj.* more than a quarter/ },
  'llama-int8-compressed': { numKept: { int8: 7 }, expanded: null },
  'qwen2-awq': { numKept: { int4_zero: 7 }, expanded: null },
  'llama-gptq-act-order': { numKept: { int4_zero: 5 }, expanded: /(o|down)_proj.* more than a quarter/ },
  'mistral-gptq-v2': { numKept: { int4: 7 }, expanded: null },
  'llama-gptq-int8-act-order': { numKept: { int8_zero: 5 }, expanded: /(o|down)_proj.* more than a quarter/ },
  'qwen2-int8-compressed-zero': { numKept: { int8_zero: 7 }, expanded: null },
} as const;
const names = Object.keys(goldens) as (keyof typeof goldens)[];

const options = { device: 'cpu', dtype: 'float32', numThreads: 1, maxNumBatchedTokens: 64 } as const;
const session = (model: string, prompt: readonly number[]): Session => ({
  model,
  options,
  rounds: [[{ type: 'logits', promptTokenIds: prompt }]],
});

function referenceLogits(model: Model, prompt: readonly number[]): number[] {
  const limits = { blockSize: 32, numBlocks: 4, maxModelLen: 128, maxNumSeqs: 1, maxNumBatchedTokens: 128, maxNumLogitRows: 128 };
  const types = { dtype: 'float32', kvCacheDtype: 'float32', quantization: 'none' } as const;
  const program = buildProgram(model, { rank: 0, worldSize: 1, ...types, ...limits, sampleVocabSize: model.config.vocabSize });
  return referenceRun([new ReferenceRank(program)], prompt, [...prompt.keys()]).flatMap((row) => [...row]);
}

test('which matrices keep their integers', async (t) => {
  for (const name of names) {
    const { integers } = readModel(goldenPath(name));
    const { numKept, expanded } = goldens[name];
    t.same(integers.numKept, { int8: 0, int8_zero: 0, int4: 0, int4_zero: 0, fp8: 0, ...numKept }, name);
    t.equal(integers.expanded.length, 7 - Object.values(numKept).reduce<number>((sum, count) => sum + count, 0), name);
    for (const { name: matrix, reason } of integers.expanded) t.match(`${matrix} ${reason}`, expanded, name);
  }
});

/**
 * A sum in fp32 may round an activation to the integer beside that of float64. One such step moves the logits of these models
 * by 0.001; the rounding of all activations by 0.01 to 0.03.
 */
const mostStep = 0.004;
const mostRounding = 0.05;

test('logits are those of the reference', async (t) => {
  const prompts = names.map((name) => readGolden(name).prompts[3] as readonly number[]);
  const { sessions } = await runJob(
    1,
    names.map((name, i) => session(goldenPath(name), prompts[i] as readonly number[])),
  );
  names.forEach((name, i) => {
    const kept = logitsOf(sessions[i]?.[0]);
    const fromReference = relativeError(kept, referenceLogits(readModel(goldenPath(name)), prompts[i] as readonly number[]));
    t.ok(fromReference < mostStep, `${name}: ${fromReference} from the reference`);
    const fromGolden = relativeError(kept, readGolden(name).logits[3] as Float32Array);
    t.ok(fromGolden > mostStep && fromGolden < mostRounding, `${name}: ${fromGolden} from transformers`);
  });
});

/** Words with every field of four bits changed, or with neighbours exchanged. */
const words = (bytes: Buffer, change: (word: number) => number) =>
  new Uint8Array(Uint32Array.from(new Uint32Array(Uint8Array.from(bytes).buffer), change).buffer);
type Mistake = readonly [golden: keyof typeof goldens, tensor: string, change: (bytes: Buffer) => Uint8Array];
const mistakes: Record<string, Mistake> = {
  'zero points one off': ['qwen2-awq', 'qzeros', (bytes) => words(bytes, (word) => word ^ 0x11111111)],
  'zero points of bytes 16 off': ['qwen2-int8-compressed-zero', 'weight_zero_point', (bytes) => bytes.map((zero) => zero ^ 16)],
  'nibbles in another order': [
    'qwen2-awq',
    'qweight',
    (bytes) => words(bytes, (word) => ((word >>> 4) & 0x0f0f0f0f) | ((word & 0x0f0f0f0f) << 4)),
  ],
  'scales of another group': [
    'qwen2-awq',
    'scales',
    (bytes) => Uint8Array.from([...bytes.subarray(bytes.length / 2), ...bytes.subarray(0, bytes.length / 2)]),
  ],
};

test('a wrong zero point, nibble or group is found', async (t) => {
  const root = t.testdir({});
  const promptOf = (golden: string) => readGolden(golden).prompts[3] as readonly number[];
  const wrong = Object.entries(mistakes).map(([what, [golden, suffix, change]]) => {
    const folder = join(root, what.replaceAll(' ', '-'));
    cpSync(goldenPath(golden), folder, { recursive: true });
    const { header, data } = readWeights(folder);
    const name = `model.layers.0.self_attn.v_proj.${suffix}`;
    const { dtype, shape, data_offsets } = header[name] as HeaderEntry;
    replaceTensors(folder, { [name]: { dtype, shape, bytes: change(data.subarray(...(data_offsets as [number, number]))) } });
    return session(folder, promptOf(golden));
  });
  const { sessions } = await runJob(1, wrong);
  Object.entries(mistakes).forEach(([what, [golden]], i) => {
    const error = relativeError(logitsOf(sessions[i]?.[0]), referenceLogits(readModel(goldenPath(golden)), promptOf(golden)));
    t.ok(error > 3 * mostStep, `${what}: ${error}`);
  });
});

test('a scale that its format cannot hold is refused, with what loads it', async (t) => {
  const folder = join(t.testdir({}), 'model');
  cpSync(goldenPath('qwen2-awq'), folder, { recursive: true });
  const { header, data } = readWeights(folder);
  const name = 'model.layers.0.mlp.down_proj.scales';
  const { dtype, shape, data_offsets } = header[name] as HeaderEntry;
  const bytes = Uint8Array.from(data.subarray(...(data_offsets as [number, number])));
  bytes.set([0, 0x5c], 10); // 256
  replaceTensors(folder, { [name]: { dtype, shape, bytes } });
  const expected = {
    code: 'ERR_CHECKPOINT',
    message: /times 256, fp16 holds for tensor model\.layers\.0\.mlp\.down_proj\.weight .*'expand'/,
  };
  await t.rejects(LLM.load(folder, options), expected);
  const llm = await LLM.load(folder, { ...options, quantization: 'expand' });
  t.equal(llm.quantizedMatrices, null);
  await llm.close();
});

test('a load says which matrices keep their integers', async (t) => {
  const llm = await LLM.load(goldenPath('llama-gptq-act-order'), options);
  t.match(llm.quantizedMatrices, { numKept: { int4_zero: 5 }, expanded: [{ name: /o_proj/ }, { name: /down_proj/ }] });
  await llm.close();
});

test('integers become bfloat16 on request', async (t) => {
  const name = 'qwen2-awq';
  const prompt = readGolden(name).prompts[3] as readonly number[];
  const { sessions } = await runJob(1, [{ ...session(goldenPath(name), prompt), options: { ...options, quantization: 'expand' } }]);
  t.ok(relativeError(logitsOf(sessions[0]?.[0]), readGolden(name).logits[3] as Float32Array) < 2e-4);
});
