/** Quantized checkpoints: what config.json may say, which tensors belong to a weight, and how it is then read. */
import { join } from 'node:path';
import { test } from 'tap';
import { ConfigReader } from '../../../rank/model/config/config-reader.ts';
import { parseQuantization } from '../../../rank/model/config/quantization.ts';
import { readModel } from '../../../rank/model/index.ts';
import { packedDtype } from '../../../rank/model/stored-types.ts';
import { awqConfig, gptqConfig, packConfig, packTensors, storeIntegers } from '../../helpers/bad-integers.ts';
import { fp8Config, storeZeros, weight } from '../../helpers/bad-quantized.ts';
import { copyGoodModel, editJson } from '../../helpers/checkpoint-edits.ts';
import { goldenPath } from '../../helpers/goldens.ts';

const parse = (quantization_config: unknown) => parseQuantization(new ConfigReader('config.json', { quantization_config }));

const noIntegers = { integers: [], keptModules: [] };

test('blocks that share a scale', async (t) => {
  t.equal(parse(null), null);
  t.equal(parse(undefined), null);
  t.same(parse(fp8Config), { scaleBlocks: [[32, 32]], ...noIntegers });
  t.same(parse({ ...fp8Config, weight_block_size: null }), { scaleBlocks: [[null, null]], ...noIntegers });
  t.same(
    parse({ quant_method: 'fp8' }),
    {
      scaleBlocks: [
        [null, null],
        [128, 128],
      ],
      ...noIntegers,
    },
    'no block size: either, as the scales have it',
  );
  const weights = { num_bits: 8, type: 'float', symmetric: true };
  const config_groups = {
    attention: { weights: { ...weights, strategy: 'channel' } },
    mlp: { weights: { ...weights, strategy: 'block', block_structure: [128, 64] }, format: 'float-quantized' },
    head: { weights: { ...weights, strategy: 'tensor' } },
  };
  const compressed = {
    quant_method: 'compressed-tensors',
    format: 'float-quantized',
    config_groups,
    transform_config: {},
    ignore: ['re:x'],
  };
  t.same(parse(compressed), {
    scaleBlocks: [
      [1, null],
      [128, 64],
      [null, null],
    ],
    ...noIntegers,
  });
});

test('integers, and modules without', async (t) => {
  const scheme = {
    layout: 'rows',
    bits: 4,
    groupSize: 32,
    isPerTensor: false,
    zeros: 'none',
    groupIndex: 'none',
    zeroOffset: 0,
    isSymmetric: false,
  };
  const integersOf = (config: object) => parse(config)?.integers;
  t.same(integersOf(packConfig()), [scheme]);
  t.same(integersOf(packConfig({ symmetric: false, actorder: 'group' })), [{ ...scheme, zeros: 'required', groupIndex: 'optional' }]);
  t.same(integersOf(packConfig({ actorder: 'weight', strategy: 'channel', num_bits: 8 })), [{ ...scheme, bits: 8, groupSize: null }]);
  const bytes = { ...scheme, layout: 'bytes', bits: 8, groupSize: null, isPerTensor: true };
  t.same(integersOf(packConfig({ num_bits: 8, strategy: 'tensor' }, { format: 'int-quantized' })), [bytes]);
  const awq = { ...scheme, layout: 'awq', zeros: 'required' };
  t.same(integersOf({ ...awqConfig, version: 'GEMM' }), [awq]);
  t.same(integersOf({ ...awqConfig, group_size: -1, zero_point: false }), [{ ...awq, groupSize: null, zeros: 'optional' }]);
  const gptq = { ...awq, layout: 'gptq', groupIndex: 'optional', zeroOffset: 1, isSymmetric: true };
  t.same(integersOf({ ...gptqConfig, dynamic: { '-:.*mlp.*': {} } }), [gptq]);
  const second = { ...gptqConfig, bits: 8, desc_act: true, checkpoint_format: 'gptq_v2' };
  t.same(integersOf(second), [{ ...gptq, bits: 8, groupIndex: 'required', zeroOffset: 0 }]);
  const kept = (config: object, module: string) => parse(config)?.keptModules.some((pattern) => pattern.test(module));
  const ignore = packConfig({}, { ignore: ['lm_head', 're:.*[ab]_proj'] });
  t.same(
    ['lm_head', 'model.lm_head', 'lm_head.x', 'mlp.a_proj', 'mlp.c_proj'].map((module) => kept(ignore, module)),
    [true, false, false, true, false],
  );
  const parts = { ...awqConfig, modules_to_not_convert: ['visual', 'a.b'] };
  t.same(
    ['model.visual.x', 'layers.a.b', 'layers.axb'].map((module) => kept(parts, module)),
    [true, true, false],
  );
});

test('integers of a projection, beside others that are not quantized', async (t) => {
  const folder = join(t.testdir({}), 'model');
  copyGoodModel(folder);
  const { weightBytes } = readModel(folder);
  const group = { targets: ['Linear'], weights: { num_bits: 4, type: 'int', strategy: 'channel' } };
  const { config_groups } = packConfig();
  editJson(folder, 'config.json', { quantization_config: packConfig({}, { config_groups: { ...config_groups, group } }) });
  storeIntegers(folder, { ...packTensors, input_scale: ['F32', [1]], input_zero_point: ['I8', [1]] });
  const model = readModel(folder);
  t.equal(model.weightBytes, weightBytes, 'as many as of bf16');
  const { qProj, kProj } = model.tensors.layers[0] ?? {};
  const scales = { dtype: 'bfloat16', rowStride: 2, groupStride: 1 };
  t.match(qProj?.weight, { dtype: 'bfloat16', fp8: null, numCols: 64, integers: { groupSize: 32, scales, zeros: null, zeroOffset: 8 } });
  t.match(kProj?.weight, { dtype: 'bfloat16', integers: null });
  storeIntegers(folder, { ...packTensors, weight_scale: ['F16', [64, 1]] });
  t.match(readModel(folder).tensors.layers[0]?.qProj.weight.integers, { groupSize: 64 }, 'the scheme that fits');
});

test('a weight, its scales and what is not read', async (t) => {
  const folder = join(t.testdir({}), 'model');
  copyGoodModel(folder);
  const { weightBytes, tensors } = readModel(folder);
  const embedding = tensors.embedTokens.name;
  editJson(folder, 'config.json', { quantization_config: { ...fp8Config, weight_block_size: [48, 24] } });
  storeZeros(folder, {
    [weight]: ['F8_E4M3', [64, 64]],
    [`${weight}_scale_inv`]: ['F16', [2, 3]],
    'model.layers.0.self_attn.q_proj.input_scale': ['F32', []],
    'model.layers.0.self_attn.k_scale': ['F32', [1]],
    'model.layers.0.self_attn.v_scale': ['F32', [1]],
    [embedding]: ['F8_E4M3', [tensors.embedTokens.numRows, 64]],
    [`${embedding}_scale`]: ['BF16', [Math.ceil(tensors.embedTokens.numRows / 48), 3]],
  });
  const model = readModel(folder);
  t.equal(model.storedDtype, 'bfloat16', 'of an embedding of FP8');
  // q shares its product with k and v of bf16; the LM head, which is tied, has a byte for each input and three scales.
  const saved = tensors.embedTokens.numRows * (2 * 64 - (64 + 3 * 4));
  t.equal(model.weightBytes, weightBytes - saved, 'as many as of bf16, but for the LM head');
  t.match(model.tensors.layers[0]?.qProj.weight, { dtype: 'bfloat16', fp8: { dtype: 'float16', rowsPerScale: 48, colsPerScale: 24 } });
  t.match(model.tensors.layers[0]?.kProj.weight, { dtype: 'bfloat16', fp8: null }, 'a neighbour that is not quantized');
});

test('scales of a row and of a tensor', async (t) => {
  const scalesOf = (name: string) => readModel(goldenPath(name)).tensors.layers[0]?.downProj.weight.fp8;
  t.match(scalesOf('llama-fp8-channel-mixed'), { dtype: 'float32', rowsPerScale: 1, colsPerScale: 160 });
  t.match(scalesOf('mistral-fp8-tensor'), { dtype: 'bfloat16', rowsPerScale: 64, colsPerScale: 160 });
  t.match(scalesOf('llama-fp8-compressed-tensor'), { dtype: 'float32', rowsPerScale: 64, colsPerScale: 160 });
});

test('the type in which pieces are packed keeps the values of all', async (t) => {
  const of = (...dtypes: ('float32' | 'bfloat16' | 'float16')[]) => packedDtype(dtypes.map((dtype) => ({ dtype })));
  t.same([of('bfloat16', 'bfloat16'), of('float16'), of('float32')], ['bfloat16', 'float16', 'float32']);
  t.same([of('bfloat16', 'float16'), of('bfloat16', 'bfloat16', 'float32'), of('float16', 'float32')], ['float32', 'float32', 'float32']);
});
