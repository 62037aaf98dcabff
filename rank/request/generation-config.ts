/** A model's default sampling parameters, from its generation_config.json, as vLLM reads them. */
import { join } from 'node:path';
import { type Check, integerIn, numberWhere } from '../../protocol/checks.ts';
import { NdsError } from '../../protocol/errors.ts';
import { ConfigReader } from '../model/config/config-reader.ts';
import { fileSize, readJsonFile } from '../model/json.ts';
import { maxInt32 } from './sampling-checks.ts';
import { resolveSamplingParams, samplingRows } from './sampling-params.ts';

/** Defaults of sampling parameters that the caller leaves out. */
export interface SamplingDefaults {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  /** `max_new_tokens`. */
  readonly maxTokens?: number;
}

/** Parameter and check of each key. A check differs from the call's where a file may hold other values. */
const rows: Readonly<Record<string, readonly [name: keyof SamplingDefaults, check: Check<number>]>> = {
  temperature: ['temperature', samplingRows.temperature.check],
  // -1 and 0 are kept as read: both mean all.
  top_k: ['topK', integerIn(-1, maxInt32, samplingRows.topK.check.expected)],
  top_p: ['topP', samplingRows.topP.check],
  min_p: ['minP', samplingRows.minP.check],
  repetition_penalty: ['repetitionPenalty', numberWhere('a number above 0', (value) => value > 0 && Number.isFinite(value))],
  max_new_tokens: ['maxTokens', integerIn(1, maxInt32, 'an integer of at least 1')],
};

/**
 * The sampling parameters of a generation_config.json. An absent or null key sets no default.
 *
 * `do_sample` is ignored, as in vLLM: where it is false or absent Transformers would be greedy, here the temperature
 * decides. Keys of other decoding strategies are ignored too.
 *
 * @throws NdsError `ERR_CONFIG` naming the file and the key that is of a wrong type or out of range.
 */
export function parseSamplingDefaults(config: ConfigReader): SamplingDefaults {
  const defaults: Partial<Record<keyof SamplingDefaults, number>> = {};
  for (const [key, [name, check]] of Object.entries(rows)) {
    if (!config.has(key)) continue;
    const value = check.read(config.raw(key));
    if (value === undefined) throw config.wrong(key, check.expected);
    defaults[name] = value;
  }
  // A penalty of 1 changes nothing.
  if (defaults.repetitionPenalty === 1) delete defaults.repetitionPenalty;
  return defaults;
}

/**
 * Sampling defaults of a model folder; empty without a generation_config.json.
 * @throws NdsError `ERR_CONFIG` for a file that is broken; `ERR_UNSUPPORTED` for a parameter that cannot be served.
 */
export function readSamplingDefaults(folder: string): SamplingDefaults {
  const file = join(folder, 'generation_config.json');
  if (fileSize(file, 'ERR_CONFIG') === undefined) return {};
  const defaults = parseSamplingDefaults(new ConfigReader(file, readJsonFile(file, 'ERR_CONFIG').object));
  try {
    resolveSamplingParams(defaults);
  } catch (error) {
    const advice = `Expected sampling parameters that are supported for ${file} (generationConfig: 'none' ignores it)`;
    throw new NdsError('ERR_UNSUPPORTED', `${advice} but received: ${(error as Error).message}`, { cause: error });
  }
  return defaults;
}
