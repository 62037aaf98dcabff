/** The options that load a model, shared by every command that loads one. */
import type { OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { integer, number, text } from '../../launcher/option-parsers.ts';
import type { LLMOptions } from '../../rank/index.ts';
import { deviceOf, deviceSpecs } from './device-options.ts';
import { speculativeConfig } from './speculative-option.ts';

export const loadSpecs = {
  dtype: { value: 'TYPE', parse: text, help: 'activations: auto, float32 or bfloat16 (default: auto)' },
  'kv-cache-dtype': { value: 'TYPE', parse: text, help: 'KV cache: auto, float32, bfloat16 or int8 (default: auto)' },
  quantization: {
    value: 'TYPE',
    parse: text,
    help: 'weights on the CPU: none (as stored), expand (integers and FP8 as bfloat16), int8 or int4 (default: none)',
  },
  ...deviceSpecs,
  'max-model-len': { value: 'N', parse: integer(1), help: "most tokens of prompt and output (default: the model's own limit)" },
  'kv-cache-memory-bytes': { value: 'N', parse: integer(1), help: 'KV cache of each rank' },
  'kv-cache-memory-share': { value: 'S', parse: number, help: 'KV cache of the ranks of a host, of its free memory (default: 0.25)' },
  'num-threads': { value: 'N', parse: integer(1), help: 'threads of each rank (default: cores / ranks)' },
  'speculative-config': {
    value: 'JSON',
    parse: speculativeConfig,
    help: 'draft tokens ahead, e.g. {"method":"ngram"} or {"model":"DRAFT"} (default: none)',
  },
} satisfies Record<string, OptionSpec<unknown>>;

/** The load options that these stand for; the rank checks their values. */
export function loadOf(options: Partial<OptionValues<typeof loadSpecs>>): LLMOptions {
  return {
    dtype: options.dtype as LLMOptions['dtype'],
    kvCacheDtype: options['kv-cache-dtype'] as LLMOptions['kvCacheDtype'],
    quantization: options.quantization as LLMOptions['quantization'],
    ...deviceOf(options),
    maxModelLen: options['max-model-len'],
    kvCacheMemoryBytes: options['kv-cache-memory-bytes'],
    kvCacheMemoryShare: options['kv-cache-memory-share'],
    numThreads: options['num-threads'],
    speculativeConfig: options['speculative-config'],
  };
}
