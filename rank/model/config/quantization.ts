/** What config.json says of quantized weights: 8-bit floats, and integers of 4 or 8 bits. */
import type { ConfigReader } from './config-reader.ts';
import {
  type IntegerScheme,
  parseAwq,
  parseCompressedIntegers,
  parseGptq,
  parseIgnore,
  parseKeptParts,
  requireValue,
} from './integer-quantization.ts';

/** Rows and columns of a matrix that share one scale; `null` = all of them. */
export type ScaleBlock = readonly [rows: number | null, cols: number | null];

/** Which tensors are quantized shows in the tensors themselves. */
export interface Quantization {
  /** Blocks that the scales of an FP8 tensor may be for. */
  readonly scaleBlocks: readonly ScaleBlock[];
  /** How tensors may be stored as integers. */
  readonly integers: readonly IntegerScheme[];
  /** Match the names of modules that are not stored as integers. For FP8 such lists go unread. */
  readonly keptModules: readonly RegExp[];
}

const perTensor: ScaleBlock = [null, null];
const perChannel: ScaleBlock = [1, null];
/** Block size of transformers where config.json names none. */
const defaultBlock: ScaleBlock = [128, 128];
const formats: readonly unknown[] = ['float-quantized', 'pack-quantized', 'int-quantized'];

/**
 * Reads `quantization_config`; `null` without one. How activations would be quantized is not read: they stay as they
 * are, which is closer to the model before its quantization.
 * @throws NdsError `ERR_UNSUPPORTED` for another method or format, `ERR_CONFIG` for a bad value.
 */
export function parseQuantization(config: ConfigReader): Quantization | null {
  const section = config.section('quantization_config');
  if (section === undefined) return null;
  switch (section.raw('quant_method')) {
    case 'fp8':
      return { scaleBlocks: parseFp8(section), integers: [], keptModules: [] };
    case 'compressed-tensors':
      return parseCompressedTensors(section);
    case 'awq':
      return { scaleBlocks: [], integers: [parseAwq(section)], keptModules: parseKeptParts(section) };
    case 'gptq':
      return { scaleBlocks: [], integers: [parseGptq(section)], keptModules: parseKeptParts(section) };
    case undefined:
      throw config.wrong('quantization_config', 'an object with a quant_method', 'ERR_UNSUPPORTED');
    default:
      throw section.wrong('quant_method', '"fp8", "compressed-tensors", "awq" or "gptq"', 'ERR_UNSUPPORTED');
  }
}

function parseFp8(section: ConfigReader): ScaleBlock[] {
  requireValue(section, 'fmt', 'e4m3', true);
  const key = 'weight_block_size';
  if (!section.hasKey(key)) return [perTensor, defaultBlock];
  return [section.has(key) ? parseBlock(section, key) : perTensor];
}

function parseCompressedTensors(section: ConfigReader): Quantization {
  const format = section.raw('format') as 'float-quantized' | 'pack-quantized' | 'int-quantized';
  if (!formats.includes(format)) throw section.wrong('format', formats.map((name) => `"${name}"`).join(' or '), 'ERR_UNSUPPORTED');
  // A rotation of weights that activations would have to follow.
  if (section.section('transform_config')?.keys().length) throw section.wrong('transform_config', 'no value', 'ERR_UNSUPPORTED');
  const groups = section.section('config_groups');
  const names = groups?.keys() ?? [];
  if (groups === undefined || names.length === 0) throw section.wrong('config_groups', 'an object with a group');
  const weights = names.map((name) => {
    const group = groups.section(name);
    const weights = group?.section('weights');
    if (group === undefined || weights === undefined) throw groups.wrong(name, 'an object with weights', 'ERR_UNSUPPORTED');
    requireValue(group, 'format', format, true);
    return weights;
  });
  if (format === 'float-quantized') return { scaleBlocks: weights.map(parseFloats), integers: [], keptModules: [] };
  const integers = weights.map((one) => parseCompressedIntegers(one, format));
  return { scaleBlocks: [], integers, keptModules: parseIgnore(section) };
}

function parseFloats(weights: ConfigReader): ScaleBlock {
  requireValue(weights, 'type', 'float');
  requireValue(weights, 'num_bits', 8);
  requireValue(weights, 'symmetric', true, true);
  const strategy = weights.raw('strategy');
  if (strategy === 'tensor') return perTensor;
  if (strategy === 'channel') return perChannel;
  if (strategy === 'block') return parseBlock(weights, 'block_structure');
  throw weights.wrong('strategy', '"tensor", "channel" or "block"', 'ERR_UNSUPPORTED');
}

function parseBlock(section: ConfigReader, key: string): ScaleBlock {
  const value = section.raw(key);
  const isSize = (size: unknown) => Number.isSafeInteger(size) && (size as number) >= 1 && (size as number) < 2 ** 31;
  if (!Array.isArray(value) || value.length !== 2 || !value.every(isSize)) throw section.wrong(key, 'two sizes');
  return [value[0] as number, value[1] as number];
}
