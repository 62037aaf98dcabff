/** Folders with FP8 weights, or a quantization_config, that are refused: the good model with one projection quantized. */
import type { BadModel } from './bad-models.ts';
import { editJson, replaceTensors } from './checkpoint-edits.ts';

export type Stored = readonly [dtype: string, shape: readonly number[]];

const bytesOf: Readonly<Record<string, number>> = {
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  BF16: 2,
  F16: 2,
  F32: 4,
  I32: 4,
  I64: 8,
};
const projection = 'model.layers.0.self_attn.q_proj';
export const weight = `${projection}.weight`;
export const fp8Config = { quant_method: 'fp8', fmt: 'e4m3', weight_block_size: [32, 32], activation_scheme: 'dynamic' };

/** Replaces tensors by ones of zeros, or adds them. */
export function storeZeros(folder: string, tensors: Record<string, Stored>): void {
  const zeros = ([dtype, shape]: Stored) => new Uint8Array(shape.reduce((a, b) => a * b, bytesOf[dtype] as number));
  const entries = Object.entries(tensors).map(
    ([name, stored]) => [name, { dtype: stored[0], shape: stored[1], bytes: zeros(stored) }] as const,
  );
  replaceTensors(folder, Object.fromEntries(entries));
}

/** A folder whose config.json has `config`, if any, and with these tensors. */
function stored(name: string, names: RegExp, config: object | null, tensors: Record<string, Stored>): BadModel {
  return {
    name,
    code: 'ERR_TENSOR',
    names,
    spoil: (folder) => {
      if (config !== null) editJson(folder, 'config.json', { quantization_config: config });
      storeZeros(folder, tensors);
    },
  };
}

const fp8: Stored = ['F8_E4M3', [64, 64]];
const scales: Stored = ['F32', [2, 2]];
const tensors = [
  stored('FP8 without a quantization_config', /quantization_config .*q_proj\.weight/, null, {
    [weight]: fp8,
    [`${weight}_scale_inv`]: scales,
  }),
  stored('FP8 without scales', /q_proj\.weight_scale_inv" or .*q_proj\.weight_scale" .*none/, fp8Config, { [weight]: fp8 }),
  stored('FP8 with scales of two names', /q_proj\.weight_scale_inv" or .* both/, fp8Config, {
    [weight]: fp8,
    [`${weight}_scale_inv`]: scales,
    [`${weight}_scale`]: scales,
  }),
  stored('scales of a weight that is not FP8', /F8_E4M3 .*q_proj\.weight".*q_proj\.weight_scale_inv" .*BF16/, fp8Config, {
    [`${weight}_scale_inv`]: scales,
  }),
  stored('the same without a quantization_config', /F8_E4M3 .*q_proj\.weight".*q_proj\.weight_scale" .*BF16/, null, {
    [`${weight}_scale`]: scales,
  }),
  stored('scales of another block', /\[2,2\] .*q_proj\.weight_scale_inv".* \[1,1\]/, fp8Config, {
    [weight]: fp8,
    [`${weight}_scale_inv`]: ['F32', [1, 1]],
  }),
  stored('a scale for each row where a block has one', /\[2,2\] .*q_proj\.weight_scale_inv".* \[64,1\]/, fp8Config, {
    [weight]: fp8,
    [`${weight}_scale_inv`]: ['F32', [64, 1]],
  }),
  stored('scales of integers', /F32, BF16 or F16 .*q_proj\.weight_scale_inv".* I32/, fp8Config, {
    [weight]: fp8,
    [`${weight}_scale_inv`]: ['I32', [2, 2]],
  }),
  stored('scales of powers of two', /F32, BF16 or F16 .*q_proj\.weight_scale_inv".* F8_E8M0/, fp8Config, {
    [weight]: fp8,
    [`${weight}_scale_inv`]: ['F8_E8M0', [2, 2]],
  }),
  stored('another FP8', /F8_E4M3, F32, BF16 or F16 .*q_proj\.weight".* F8_E5M2/, fp8Config, {
    [weight]: ['F8_E5M2', [64, 64]],
    [`${weight}_scale_inv`]: scales,
  }),
  stored('a norm of FP8', /type F32, BF16 or F16 .*"model\.norm\.weight".* F8_E4M3/, fp8Config, { 'model.norm.weight': ['F8_E4M3', [64]] }),
  stored('a scale of activations that meet no FP8', /q_proj\.activation_scale/, fp8Config, {
    [`${projection}.activation_scale`]: ['F32', []],
  }),
  stored('a scale of a KV cache without a quantization_config', /self_attn\.k_scale/, null, {
    'model.layers.0.self_attn.k_scale': ['F32', [1]],
  }),
];

function config(name: string, names: RegExp, value: unknown, code: BadModel['code'] = 'ERR_UNSUPPORTED'): BadModel {
  return { name, code, names, spoil: (folder) => editJson(folder, 'config.json', { quantization_config: value }) };
}

const group = (weights: object | null, more: object = {}) => ({
  quant_method: 'compressed-tensors',
  format: 'float-quantized',
  config_groups: { group_0: { targets: ['Linear'], weights: weights && { num_bits: 8, type: 'float', strategy: 'channel', ...weights } } },
  ...more,
});
const configs = [
  ...['bitsandbytes', 'mxfp4', 'modelopt', 'fbgemm_fp8', 'quanto'].map((method) =>
    config(`quant_method ${method}`, new RegExp(`quant_method .*"${method}"`), { quant_method: method, bits: 4 }),
  ),
  ...['nvfp4-pack-quantized', 'mixed-precision', 'marlin-24', undefined].map((format) =>
    config(`format ${format}`, new RegExp(`quantization_config\\.format .*(${format}|nothing)`), group({}, { format })),
  ),
  config('another FP8 in config.json', /fmt .*"e5m2"/, { ...fp8Config, fmt: 'e5m2' }),
  config('a block of one size', /weight_block_size .*\[128\]/, { ...fp8Config, weight_block_size: [128] }, 'ERR_CONFIG'),
  config('a block of no rows', /weight_block_size .*\[0,128\]/, { ...fp8Config, weight_block_size: [0, 128] }, 'ERR_CONFIG'),
  config('a quantization_config that is no object', /quantization_config .*"fp8"/, 'fp8', 'ERR_CONFIG'),
  config('no groups', /config_groups/, group({}, { config_groups: {} }), 'ERR_CONFIG'),
  config('a group without weights', /group_0/, group(null)),
  config('weights of 4 bits', /num_bits .*4/, group({ num_bits: 4 })),
  config('weights of integers', /type .*"int"/, group({ type: 'int' })),
  config('weights with an offset', /symmetric .*false/, group({ symmetric: false })),
  config('scales for groups of columns', /strategy .*"group"/, group({ strategy: 'group', group_size: 128 })),
  config('a block without sizes', /block_structure/, group({ strategy: 'block' }), 'ERR_CONFIG'),
  config('rotated weights', /transform_config/, group({}, { transform_config: { config_groups: { R1: {} } } })),
];

/** Every bad quantized checkpoint. */
export const badQuantized: readonly BadModel[] = [...tensors, ...configs];
