/** FP8 checkpoints: what config.json may say, which tensors belong to a weight, and how it is then read. */
import { join } from 'node:path';
import { test } from 'tap';
import { ConfigReader } from '../../../rank/model/config/config-reader.ts';
import { parseQuantization } from '../../../rank/model/config/quantization.ts';
import { readModel } from '../../../rank/model/index.ts';
import { packedDtype } from '../../../rank/model/stored-types.ts';
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
  t.equal(model.weightBytes, weightBytes, 'as many as of bf16');
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
