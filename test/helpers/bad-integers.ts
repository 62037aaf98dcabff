/** Folders with weights of integers, or their quantization_config, that are refused: one projection is stored so. */
import type { BadModel } from './bad-models.ts';
import { type Stored, storeZeros, weight } from './bad-quantized.ts';
import { editJson, replaceTensors } from './checkpoint-edits.ts';

const base = weight.replace(/\.weight$/, '');
const qkv: Stored = ['BF16', [64, 64]];

export const packConfig = (weights: object = {}, more: object = {}) => ({
  quant_method: 'compressed-tensors',
  format: 'pack-quantized',
  config_groups: { group_0: { targets: ['Linear'], weights: { num_bits: 4, type: 'int', strategy: 'group', group_size: 32, ...weights } } },
  ignore: ['lm_head'],
  ...more,
});
const intConfig = (weights: object = {}) => packConfig({ num_bits: 8, strategy: 'channel', ...weights }, { format: 'int-quantized' });
export const awqConfig = { quant_method: 'awq', bits: 4, group_size: 32, version: 'gemm', zero_point: true };
export const gptqConfig = { quant_method: 'gptq', bits: 4, group_size: 32, desc_act: false, sym: true };

/** Tensors of the projection `[64, 64]` in groups of 32 columns. */
export const packTensors: Record<string, Stored> = {
  weight_packed: ['I32', [64, 8]],
  weight_scale: ['BF16', [64, 2]],
  weight_shape: ['I64', [2]],
};
const intTensors: Record<string, Stored> = { weight: ['I8', [64, 64]], weight_scale: ['F32', [64, 1]] };
const awqTensors: Record<string, Stored> = { qweight: ['I32', [64, 8]], qzeros: ['I32', [2, 8]], scales: ['F16', [2, 64]] };
const gptqTensors: Record<string, Stored> = { ...awqTensors, qweight: ['I32', [8, 64]], g_idx: ['I32', [64]] };

/** Stores the projection as these tensors, and `weight_shape` as `[64, 64]` unless it is `shape`. */
export function storeIntegers(folder: string, tensors: Record<string, Stored | undefined>, shape: readonly bigint[] = [64n, 64n]): void {
  if (tensors['weight'] === undefined) replaceTensors(folder, { [weight]: null });
  const entries = Object.entries(tensors).flatMap(([name, stored]) => (stored === undefined ? [] : [[`${base}.${name}`, stored] as const]));
  storeZeros(folder, Object.fromEntries(entries));
  if (tensors['weight_shape']?.[0] !== 'I64') return;
  const bytes = new Uint8Array(BigInt64Array.from(shape).buffer);
  replaceTensors(folder, { [`${base}.weight_shape`]: { dtype: 'I64', shape: [2], bytes } });
}

function stored(
  name: string,
  names: RegExp,
  quantization_config: object | undefined,
  tensors: Record<string, Stored | undefined>,
  shape?: readonly bigint[],
): BadModel {
  const spoil = (folder: string) => {
    editJson(folder, 'config.json', { quantization_config });
    storeIntegers(folder, tensors, shape);
  };
  return { name, code: 'ERR_TENSOR', names, spoil };
}

const pack = (name: string, names: RegExp, tensors: Record<string, Stored | undefined>, weights?: object, more?: object) =>
  stored(name, names, packConfig(weights, more), { ...packTensors, ...tensors });
const zeros = { weight_zero_point: ['I32', [8, 2]] } as const;
const tensors = [
  stored('integers without a quantization_config', /quantization_config .*weight_packed".* none/, undefined, packTensors),
  stored('int8 without a quantization_config', /quantization_config .*q_proj\.weight".* none/, undefined, intTensors),
  stored('integers of another method', /quantization_config .*weight_packed".* another/, awqConfig, packTensors),
  stored('int8 where words are', /quantization_config .*q_proj\.weight".* another/, packConfig(), intTensors),
  pack('integers beside their weight', /one of .*weight_packed".*q_proj\.weight".* both/, { weight: qkv }),
  pack('integers of two methods', /one of .*weight_packed".*qweight".* both/, { qweight: ['I32', [64, 8]] }),
  pack('integers of a module that is left out', /module .*q_proj".* without integers/, {}, {}, { ignore: [base] }),
  pack('integers of a module that a pattern leaves out', /module .*q_proj".* without integers/, {}, {}, { ignore: ['re:.*self_attn.*'] }),
  pack('words of other columns', /\[64,8\] .*weight_packed".* \[64,4\]/, { weight_packed: ['I32', [64, 4]] }),
  pack('words of bytes', /I32 .*weight_packed".* U8/, { weight_packed: ['U8', [64, 8]] }),
  pack('no scales', /a tensor .*weight_scale".* none/, { weight_scale: undefined }),
  pack('scales of other groups', /\[64,2\] .*weight_scale".* \[64,1\]/, { weight_scale: ['BF16', [64, 1]] }),
  pack('scales of rows for a group size', /\[64,1\] .*weight_scale".* \[64,2\]/, {}, { strategy: 'channel' }),
  pack('scales of integers', /F32 or BF16 or F16 .*weight_scale".* I32/, { weight_scale: ['I32', [64, 2]] }),
  pack('no shape', /a tensor .*weight_shape".* none/, { weight_shape: undefined }),
  stored('another shape', /\[64,64\] in .*weight_shape".* \[64,56\]/, packConfig(), packTensors, [64n, 56n]),
  pack('zero points of symmetric weights', /no tensor .*weight_zero_point"/, zeros),
  pack('no zero points', /a tensor .*weight_zero_point".* none/, {}, { symmetric: false }),
  pack('zero points of rows', /\[8,2\] .*weight_zero_point".* \[64,2\]/, { weight_zero_point: ['I32', [64, 2]] }, { symmetric: false }),
  pack('groups of columns without an order', /no tensor .*weight_g_idx"/, { weight_g_idx: ['I32', [64]] }),
  pack('groups of other columns', /\[64\] .*weight_g_idx".* \[32\]/, { weight_g_idx: ['I32', [32]] }, { actorder: 'group' }),
  pack('a companion of no known kind', /weight_permutation/, { weight_permutation: ['I32', [64]] }),
  stored('int8 with scales of a tensor', /\[64,1\] .*weight_scale".* \[1\]/, intConfig(), { ...intTensors, weight_scale: ['F32', [1]] }),
  stored('AWQ without zero points', /a tensor .*qzeros".* none/, awqConfig, { ...awqTensors, qzeros: undefined }),
  stored('AWQ with the words of GPTQ', /\[64,8\] .*qweight".* \[8,64\]/, awqConfig, { ...awqTensors, qweight: ['I32', [8, 64]] }),
  stored('AWQ with groups of columns', /no tensor .*g_idx"/, awqConfig, { ...awqTensors, g_idx: ['I32', [64]] }),
  stored(
    'AWQ of a module that is left out',
    /module .*q_proj".* without integers/,
    { ...awqConfig, modules_to_not_convert: ['self_attn'] },
    awqTensors,
  ),
  stored('GPTQ with the words of AWQ', /\[8,64\] .*qweight".* \[64,8\]/, gptqConfig, { ...gptqTensors, qweight: ['I32', [64, 8]] }),
  stored(
    'GPTQ without groups for desc_act',
    /a tensor .*g_idx".* none/,
    { ...gptqConfig, desc_act: true },
    { ...gptqTensors, g_idx: undefined },
  ),
];

function config(name: string, names: RegExp, quantization_config: unknown, code: BadModel['code'] = 'ERR_UNSUPPORTED'): BadModel {
  return { name, code, names, spoil: (folder) => editJson(folder, 'config.json', { quantization_config }) };
}

const configs = [
  config('integers of 3 bits', /4 or 8 for .*num_bits .* 3/, packConfig({ num_bits: 3 })),
  config('int8 of 4 bits', /8 for .*num_bits .* 4/, intConfig({ num_bits: 4 })),
  config('packed floats', /"int" for .*type .*"float"/, packConfig({ type: 'float' })),
  config('packed words with one scale', /strategy .*"tensor"/, packConfig({ strategy: 'tensor' })),
  config('a group of no columns', /group_size .* 0/, packConfig({ group_size: 0 }), 'ERR_CONFIG'),
  config('no size of a group', /group_size .*nothing/, packConfig({ group_size: undefined }), 'ERR_CONFIG'),
  config('an unknown order', /actorder .*"random"/, packConfig({ actorder: 'random' })),
  config('no word whether there are zero points', /symmetric .*"yes"/, packConfig({ symmetric: 'yes' }), 'ERR_CONFIG'),
  config('a bad pattern', /ignore .*re:\(/, packConfig({}, { ignore: ['re:('] }), 'ERR_CONFIG'),
  config('modules that are no list', /ignore .*"lm_head"/, packConfig({}, { ignore: 'lm_head' }), 'ERR_CONFIG'),
  config('AWQ of 8 bits', /4 for .*bits .* 8/, { ...awqConfig, bits: 8 }),
  config('AWQ for other kernels', /version .*"gemv"/, { ...awqConfig, version: 'gemv' }),
  config('AWQ in groups of -2', /group_size .* -2/, { ...awqConfig, group_size: -2 }, 'ERR_CONFIG'),
  config('GPTQ of 3 bits', /4 or 8 for .*\.bits .* 3/, { ...gptqConfig, bits: 3 }),
  config('GPTQ for Marlin', /checkpoint_format .*"marlin"/, { ...gptqConfig, checkpoint_format: 'marlin' }),
  config('GPTQ with other bits for a module', /dynamic/, { ...gptqConfig, dynamic: { '+:.*mlp.*': { bits: 8 } } }),
];

/** Every bad checkpoint with integers. */
export const badIntegers: readonly BadModel[] = [...tensors, ...configs];
