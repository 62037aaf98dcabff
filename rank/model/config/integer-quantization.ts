/** What config.json says of weights that are stored as integers in groups: compressed-tensors, AWQ and GPTQ. */
import type { IntegerLayout } from '../../program-spec.ts';
import type { ConfigReader } from './config-reader.ts';

/** How matrices may be stored as integers. */
export interface IntegerScheme {
  readonly layout: IntegerLayout;
  readonly bits: 4 | 8;
  /** Columns that share a scale; `null` = a whole row, or with `isPerTensor` the whole matrix. */
  readonly groupSize: number | null;
  readonly isPerTensor: boolean;
  /** Whether there are zero points. */
  readonly zeros: Presence;
  /** Whether the group of each column is stored. */
  readonly groupIndex: Presence;
  /** Added to a stored zero point. */
  readonly zeroOffset: number;
  /** Whether stored zero points are said to be the middle of the range, which they must show. */
  readonly isSymmetric: boolean;
}

/** `optional`: as the tensors have it. */
export type Presence = 'required' | 'none' | 'optional';

/** Largest group, in columns. */
const maxGroupSize = 2 ** 31 - 1;
/** Values of `actorder`; only by group are columns and groups in another order than that of the file. */
const ordersByGroup: readonly unknown[] = ['group', 'dynamic', true];
const otherOrders: readonly unknown[] = ['weight', 'static', false];

/** The weights of a group of compressed-tensors in `format` pack-quantized or int-quantized. */
export function parseCompressedIntegers(weights: ConfigReader, format: 'pack-quantized' | 'int-quantized'): IntegerScheme {
  requireValue(weights, 'type', 'int');
  const isPacked = format === 'pack-quantized';
  const bits = weights.raw('num_bits');
  if (bits !== 8 && !(isPacked && bits === 4)) throw weights.wrong('num_bits', isPacked ? '4 or 8' : '8', 'ERR_UNSUPPORTED');
  const strategy = weights.raw('strategy');
  const isPerTensor = strategy === 'tensor' && !isPacked;
  if (strategy !== 'group' && strategy !== 'channel' && !isPerTensor)
    throw weights.wrong('strategy', isPacked ? '"group" or "channel"' : '"tensor", "channel" or "group"', 'ERR_UNSUPPORTED');
  const order = weights.has('actorder') ? weights.raw('actorder') : false;
  const isByGroup = ordersByGroup.includes(order);
  if (!isByGroup && !otherOrders.includes(order)) throw weights.wrong('actorder', '"group", "weight" or null', 'ERR_UNSUPPORTED');
  return {
    layout: isPacked ? 'rows' : 'bytes',
    bits,
    groupSize: strategy === 'group' ? weights.integer('group_size', 1, maxGroupSize) : null,
    isPerTensor,
    zeros: weights.boolean('symmetric', true) ? 'none' : 'required',
    groupIndex: isByGroup ? 'optional' : 'none',
    zeroOffset: 0,
    isSymmetric: false,
  };
}

/** AWQ with the layout of its `gemm` kernels. Without zero points, integers are signed and stored with 8 added. */
export function parseAwq(section: ConfigReader): IntegerScheme {
  requireValue(section, 'bits', 4);
  const version = section.has('version') ? section.raw('version') : 'gemm';
  if (typeof version !== 'string' || version.toLowerCase() !== 'gemm') throw section.wrong('version', '"gemm"', 'ERR_UNSUPPORTED');
  const zeros = section.boolean('zero_point', true) ? 'required' : 'optional';
  const groups = { groupSize: groupSizeOf(section), isPerTensor: false, groupIndex: 'none' } as const;
  return { layout: 'awq', bits: 4, ...groups, zeros, zeroOffset: 0, isSymmetric: false };
}

/**
 * GPTQ. `sym` and `desc_act` say how the integers were found; zero points and the groups of columns are in the tensors.
 * Zero points are stored with 1 subtracted, but not in `gptq_v2`.
 */
export function parseGptq(section: ConfigReader): IntegerScheme {
  const bits = section.raw('bits');
  if (bits !== 4 && bits !== 8) throw section.wrong('bits', '4 or 8', 'ERR_UNSUPPORTED');
  const format = section.has('checkpoint_format') ? section.raw('checkpoint_format') : 'gptq';
  if (format !== 'gptq' && format !== 'gptq_v2') throw section.wrong('checkpoint_format', '"gptq" or "gptq_v2"', 'ERR_UNSUPPORTED');
  // Other bits or groups for some modules. A rule that only leaves modules out begins with "-:".
  const rules = section.section('dynamic');
  if (rules?.keys().some((rule) => !rule.startsWith('-:'))) throw section.wrong('dynamic', 'only rules "-:…"', 'ERR_UNSUPPORTED');
  return {
    layout: 'gptq',
    bits,
    groupSize: groupSizeOf(section),
    isPerTensor: false,
    zeros: 'required',
    groupIndex: section.boolean('desc_act', false) ? 'required' : 'optional',
    zeroOffset: format === 'gptq' ? 1 : 0,
    isSymmetric: section.boolean('sym', true),
  };
}

/** Patterns that match the names of modules which are not quantized: `ignore` of compressed-tensors. */
export function parseIgnore(section: ConfigReader): RegExp[] {
  return readNames(section, 'ignore').map((name) => {
    if (!name.startsWith('re:')) return new RegExp(`^${escapePattern(name)}$`);
    try {
      return new RegExp(`^(?:${name.slice(3)})`);
    } catch {
      throw section.wrong('ignore', 'names and patterns "re:…"');
    }
  });
}

/** Patterns that match the names of modules which are not quantized: `modules_to_not_convert`, parts of names. */
export function parseKeptParts(section: ConfigReader): RegExp[] {
  return readNames(section, 'modules_to_not_convert').map((part) => new RegExp(escapePattern(part)));
}

function readNames(section: ConfigReader, key: string): string[] {
  if (!section.has(key)) return [];
  const names = section.raw(key);
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string' && name !== '')) throw section.wrong(key, 'a list of names');
  return names as string[];
}

/** Columns of a group; `null` for -1, a whole row. */
function groupSizeOf(section: ConfigReader): number | null {
  return section.raw('group_size') === -1 ? null : section.integer('group_size', 1, maxGroupSize);
}

const escapePattern = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** @throws NdsError `ERR_UNSUPPORTED` for another value than `expected`. */
export function requireValue(section: ConfigReader, key: string, expected: string | number | boolean, isOptional = false): void {
  if (section.raw(key) === expected || (isOptional && !section.has(key))) return;
  throw section.wrong(key, JSON.stringify(expected), 'ERR_UNSUPPORTED');
}
