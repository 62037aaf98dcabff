/** Sampling parameters: what a caller may ask for, checked and completed before anything is scheduled. */
import { randomInt } from 'node:crypto';
import { NdsError } from '../protocol/errors.ts';

/** How to choose tokens and when to stop. Every field is optional; an unknown one is refused. */
export interface SamplingParams {
  /** 0 = greedy; else from 1e-6 to 1e6, where single precision keeps logits apart and finite. Default 1. */
  readonly temperature?: number | undefined;
  /** Keep the k likeliest tokens; 0 or -1 = all. Default 0. */
  readonly topK?: number | undefined;
  /** Keep the likeliest tokens up to this probability mass, in (0, 1]. Default 1. */
  readonly topP?: number | undefined;
  /** Keep tokens at least this likely, relative to the likeliest, in [0, 1]. Default 0. */
  readonly minP?: number | undefined;
  /** Most tokens to generate, at least 1. Default 16. */
  readonly maxTokens?: number | undefined;
  /** Integer from 0 to 2^64 - 1; drawn and reported back when absent. */
  readonly seed?: number | bigint | undefined;
  /** Text at which to stop; it is not part of the output. */
  readonly stop?: string | readonly string[] | undefined;
  /** Whether to go on after an end-of-sequence token. Default false. */
  readonly ignoreEos?: boolean | undefined;
}

/** Sampling parameters with nothing left open. */
export interface ResolvedSamplingParams {
  readonly temperature: number;
  /** 0 = all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly maxTokens: number;
  /** A number where it is a safe integer, as a drawn one always is; else a bigint. */
  readonly seed: number | bigint;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  readonly n: number;
  readonly stopTokenIds: readonly number[];
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  readonly minTokens: number;
  readonly logitBias: readonly (readonly [number, number])[];
  readonly allowedTokenIds: readonly number[] | null;
  readonly badWords: readonly string[];
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
}

const maxSeed = 2n ** 64n - 1n;
const maxInt32 = 2 ** 31 - 1;

type Reader<T> = (value: unknown) => T;

const readers: { readonly [Key in keyof SamplingParams]-?: Reader<ResolvedSamplingParams[Key]> } = {
  temperature: number('temperature', '0 or a number from 1e-6 to 1e6', (value) => value === 0 || (value >= 1e-6 && value <= 1e6)),
  topK: (value) => Math.max(0, number('topK', 'an integer of at least -1', isIntegerFrom(-1))(value)),
  // Single precision is what native computes with: a mass that rounds to 0 would keep nothing.
  topP: number('topP', 'a number above 0 and at most 1', (value) => Math.fround(value) > 0 && value <= 1),
  minP: number('minP', 'a number from 0 to 1', (value) => value >= 0 && value <= 1),
  maxTokens: number('maxTokens', 'an integer of at least 1', isIntegerFrom(1)),
  seed: readSeed,
  stop: readStop,
  ignoreEos: (value) => {
    if (typeof value !== 'boolean') throw refuse('ignoreEos', 'true or false', value);
    return value;
  },
};

/**
 * Checks sampling parameters and fills in what is absent.
 * @param defaults - what takes the place of those that are absent, before our own defaults: the model's
 * @throws NdsError `ERR_REQUEST` naming the field that is unknown, of a wrong type or out of range.
 */
export function resolveSamplingParams(params: unknown = {}, defaults: Readonly<SamplingParams> = {}): ResolvedSamplingParams {
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    throw new NdsError('ERR_REQUEST', `Expected an object of sampling parameters but received ${describe(params)}`);
  }
  for (const key of Object.keys(params)) {
    if (Object.hasOwn(readers, key)) continue;
    throw new NdsError('ERR_REQUEST', `Expected sampling parameters among ${Object.keys(readers).join(', ')} but received '${key}'`);
  }
  const given = params as Record<string, unknown>;
  const read = <T>(key: keyof ResolvedSamplingParams, reader: Reader<T>, absent: T): T => {
    const value = given[key] === undefined ? defaults[key as keyof SamplingParams] : given[key];
    return value === undefined ? absent : reader(value);
  };
  return {
    temperature: read('temperature', readers.temperature, 1),
    topK: read('topK', readers.topK, 0),
    topP: read('topP', readers.topP, 1),
    minP: read('minP', readers.minP, 0),
    maxTokens: read('maxTokens', readers.maxTokens, 16),
    seed: read('seed', readers.seed, undefined) ?? drawSeed(),
    stop: read('stop', readers.stop, []),
    ignoreEos: read('ignoreEos', readers.ignoreEos, false),
    n: 1,
    stopTokenIds: [],
    presencePenalty: 0,
    frequencyPenalty: 0,
    repetitionPenalty: 1,
    minTokens: 0,
    logitBias: [],
    allowedTokenIds: null,
    badWords: [],
    logprobs: null,
    promptLogprobs: null,
  };
}

/** A seed that a plain number holds, so that it can be reported and given back through JSON. */
function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}

function number(name: string, expected: string, isValid: (value: number) => boolean): Reader<number> {
  return (value) => {
    if (typeof value !== 'number' || !isValid(value)) throw refuse(name, expected, value);
    return value;
  };
}

function isIntegerFrom(minimum: number): (value: number) => boolean {
  return (value) => Number.isInteger(value) && value >= minimum && value <= maxInt32;
}

function readSeed(value: unknown): number | bigint {
  const isInteger = typeof value === 'bigint' || Number.isSafeInteger(value);
  if (!isInteger || BigInt(value as number | bigint) < 0n || BigInt(value as number | bigint) > maxSeed) {
    throw refuse('seed', 'an integer from 0 to 2^64 - 1 (a bigint beyond 2^53 - 1)', value);
  }
  return (value as number | bigint) <= Number.MAX_SAFE_INTEGER ? Number(value) : (value as bigint);
}

function readStop(value: unknown): readonly string[] {
  const stops = typeof value === 'string' ? [value] : value;
  if (!Array.isArray(stops) || !stops.every((stop) => typeof stop === 'string' && stop !== '' && !/\p{Surrogate}/u.test(stop))) {
    throw refuse('stop', 'a non-empty, well-formed string or an array of such', value);
  }
  return [...stops];
}

function refuse(name: string, expected: string, value: unknown): NdsError {
  return new NdsError('ERR_REQUEST', `Expected ${expected} for ${name} but received ${describe(value)}`);
}

/** A value as an error message shows it: short, and with its type where that matters. */
export function describe(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number' || value === undefined || value === null) return String(value);
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  try {
    const text = JSON.stringify(value) ?? typeof value;
    return text.length > 80 ? `${text.slice(0, 80)}…` : text;
  } catch {
    return `a value of type ${typeof value}`;
  }
}
