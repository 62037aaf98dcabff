/** The option `--speculative-config JSON`, whose fields have vLLM's names or ours. */
import { NdsError } from '../../protocol/errors.ts';
import { nearest } from '../../protocol/nearest.ts';
import type { SpeculativeConfig } from '../../rank/index.ts';
import { checkSpeculativeConfig } from '../../rank/speculative/config.ts';

/** Names of all fields; the type keeps the list complete. */
const fields: { readonly [Field in keyof Required<SpeculativeConfig>]: true } = {
  method: true,
  model: true,
  quantization: true,
  numSpeculativeTokens: true,
  adaptiveK: true,
  rejectionSampleMethod: true,
  draftSampleMethod: true,
  draftTensorParallelSize: true,
  promptLookupMin: true,
  promptLookupMax: true,
  suffixDecodingMaxTreeDepth: true,
  suffixDecodingMaxSpecFactor: true,
  suffixDecodingMinTokenProb: true,
  suffixDecodingMaxCachedRequests: true,
};

/** Fields by both of their spellings. */
const spellings = new Map(Object.keys(fields).flatMap((name) => [[name, name] as const, [snakeCase(name), name] as const]));

/**
 * Parses a JSON object such as `{"model": "DRAFT", "num_speculative_tokens": 5}`.
 *
 * @throws NdsError `ERR_USAGE` for text that is not a JSON object, and naming a field that is unknown, repeated, of a
 * wrong type or out of range.
 */
export function speculativeConfig(text: string, where: string): SpeculativeConfig {
  const config: Record<string, unknown> = {};
  for (const [spelling, value] of Object.entries(parseObject(text, where))) {
    const name = spellings.get(spelling);
    if (name === undefined) {
      const names = Object.keys(fields).map(snakeCase);
      const near = nearest(spelling, names);
      const hint = near === null ? `, which is none of ${names.join(', ')}` : ` (did you mean ${near}?)`;
      throw new NdsError('ERR_USAGE', `Expected a known field in ${where} but received "${spelling}"${hint}`);
    }
    if (Object.hasOwn(config, name)) {
      throw new NdsError('ERR_USAGE', `Expected one spelling of ${snakeCase(name)} in ${where} but received it twice`);
    }
    config[name] = value;
  }
  return checkSpeculativeConfig(config);
}

function parseObject(text: string, where: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new NdsError('ERR_USAGE', `Expected JSON for ${where} but received "${text}": ${(error as Error).message}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new NdsError('ERR_USAGE', `Expected a JSON object for ${where} but received "${text}"`);
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
