/** Sampling parameters that a model asks for, from its generation_config.json, as vLLM takes them. */
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { ConfigReader } from '../model/config/config-reader.ts';
import { fileSize, readJsonFile } from '../model/json.ts';
import { resolveSamplingParams } from './sampling-params.ts';

/** What takes the place of a sampling parameter that the caller leaves out. */
export interface SamplingDefaults {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  /** `max_new_tokens`. */
  readonly maxTokens?: number;
}

type Rule = readonly [name: keyof SamplingDefaults, expected: string, isValid: (value: number) => boolean];

const isInteger = (minimum: number) => (value: number) => Number.isInteger(value) && value >= minimum && value < 2 ** 31;

const rules: Readonly<Record<string, Rule>> = {
  temperature: ['temperature', '0 or a number from 1e-6 to 1e6', (value) => value === 0 || (value >= 1e-6 && value <= 1e6)],
  top_k: ['topK', 'an integer of at least -1', isInteger(-1)],
  top_p: ['topP', 'a number above 0 and at most 1', (value) => Math.fround(value) > 0 && value <= 1],
  min_p: ['minP', 'a number from 0 to 1', (value) => value >= 0 && value <= 1],
  repetition_penalty: ['repetitionPenalty', 'a number above 0', (value) => value > 0 && Number.isFinite(value)],
  max_new_tokens: ['maxTokens', 'an integer of at least 1', isInteger(1)],
};

/**
 * The sampling parameters of a generation_config.json. A key that is absent or null asks for nothing.
 *
 * `do_sample` has no effect, as in vLLM: where it is false or absent Transformers would be greedy, here the temperature
 * decides. Neither have the keys of other decoding strategies.
 *
 * @throws NdsError `ERR_CONFIG` naming the file and the key that is of a wrong type or out of range.
 */
export function parseSamplingDefaults(config: ConfigReader): SamplingDefaults {
  const defaults: Partial<Record<keyof SamplingDefaults, number>> = {};
  for (const [key, [name, expected, isValid]] of Object.entries(rules)) {
    if (!config.has(key)) continue;
    const value = config.raw(key);
    if (typeof value !== 'number' || !isValid(value)) throw config.wrong(key, expected);
    defaults[name] = value;
  }
  // A penalty of 1 is none.
  if (defaults.repetitionPenalty === 1) delete defaults.repetitionPenalty;
  return defaults;
}

/**
 * Reads the defaults of a model folder, none if it has no generation_config.json.
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
