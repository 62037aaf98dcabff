/** Checks of external values: the expectation in words, and a reader of values that meet it. */
import { NdsError, type NdsErrorCode, unexpected } from './errors.ts';
import { camelCase, foreignAnswer } from './foreign-names.ts';
import { nearest } from './nearest.ts';

/** One check. `expected` follows "Expected" in a message; `read` returns the value, or `undefined` if it fails. */
export interface Check<T> {
  readonly expected: string;
  readonly read: (value: unknown) => T | undefined;
  /** What a value that fails may stand for, to follow the message; empty where nothing is near. */
  readonly hint?: (value: unknown) => string;
}

/** A value that a predicate accepts, unchanged. */
export function where<T>(expected: string, isRight: (value: never) => boolean): Check<T> {
  return { expected, read: (value) => ((isRight as (value: unknown) => boolean)(value) ? (value as T) : undefined) };
}

/** A safe integer in `[minimum, maximum]`. */
export function integerIn(minimum: number, maximum: number, expected = `an integer from ${minimum} to ${maximum}`): Check<number> {
  return where(expected, (value: number) => Number.isSafeInteger(value) && value >= minimum && value <= maximum);
}

/** A number that a predicate accepts. */
export function numberWhere(expected: string, isRight: (value: number) => boolean): Check<number> {
  return where(expected, (value: unknown) => typeof value === 'number' && isRight(value));
}

/** A number in `[minimum, maximum]`. */
export function numberIn(minimum: number, maximum: number): Check<number> {
  return numberWhere(`a number from ${minimum} to ${maximum}`, (value) => value >= minimum && value <= maximum);
}

/** The value of a JSON text; null for what is none. */
export function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export const boolean: Check<boolean> = where('true or false', (value: unknown) => typeof value === 'boolean');

export function oneOf<const T extends string>(...choices: readonly T[]): Check<T> {
  const expected = choices.map((choice) => `'${choice}'`).join(' or ');
  return { ...where(expected, (value: T) => choices.includes(value)), hint: (value) => hintAtChoice(value, choices) };
}

/** Values of other tools, and ours of the same meaning. */
const synonyms: Readonly<Record<string, string>> = {
  bf16: 'bfloat16',
  bfloat: 'bfloat16',
  fp32: 'float32',
  f32: 'float32',
  float: 'float32',
  full: 'float32',
  q8_0: 'int8',
  i8: 'int8',
  gpu: 'cuda',
  host: 'cpu',
};
const noFloat16 = ": float16 is not computed, and 'bfloat16' has as many bytes";
const answers: Readonly<Record<string, string>> = { half: noFloat16, fp16: noFloat16, f16: noFloat16, float16: noFloat16 };

function hintAtChoice(value: unknown, choices: readonly string[]): string {
  if (typeof value !== 'string') return '';
  const key = value
    .toLowerCase()
    .replace(/^torch\./, '')
    .replace(/:\d+$/, '');
  if (choices.includes('bfloat16') && Object.hasOwn(answers, key)) return answers[key] ?? '';
  const ours = Object.hasOwn(synonyms, key) ? synonyms[key] : key;
  const likely = choices.find((choice) => choice === ours) ?? nearest(key, choices);
  return likely === null ? '' : ` (did you mean '${likely}'?)`;
}

/** A non-empty string, such as a path. */
export function textFor(expected: string): Check<string> {
  return where(expected, (value: unknown) => typeof value === 'string' && value !== '');
}

/** A copy of an array whose items all pass. Holes fail, as `undefined` does. */
export function listOf<T>(expected: string, item: Check<T>): Check<readonly T[]> {
  return {
    expected,
    read: (value) => {
      if (!Array.isArray(value)) return undefined;
      const items = Array.from(value, (one) => item.read(one));
      return items.includes(undefined) ? undefined : (items as T[]);
    },
  };
}

/** Null, or a value that another check accepts. */
export function orNull<T>({ expected, read }: Check<T>): Check<T | null> {
  return { expected, read: (value) => (value === null ? null : read(value)) };
}

/** An object that is neither an array nor null, with any fields. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value as read by a check. @throws NdsError `code`, naming `place`, for a value that fails. */
export function checked<T>(value: unknown, { expected, read, hint }: Check<T>, place: string, code: NdsErrorCode): T {
  const result = read(value);
  if (result === undefined) throw new NdsError(code, `${unexpected(code, expected, place, value).message}${hint?.(value) ?? ''}`);
  return result;
}

/** A check per field; null = checked elsewhere, together with other fields. */
export type FieldChecks = Readonly<Record<string, Check<unknown> | null>>;

/** Names of an object's fields in messages. */
export interface FieldNames {
  /** The fields together, as in "Expected … among a, b but received 'c'". */
  readonly plural: string;
  /** Prefix of each name, such as `speculativeConfig.`. */
  readonly prefix?: string;
  /** Whether names of other tools, and of other places, are answered. */
  readonly knowsForeign?: boolean;
}

/**
 * Checks the fields of an object; `undefined` counts as absent.
 * @throws NdsError `code`, naming the first field that is unknown or fails.
 */
export function checkFields(object: object, checks: FieldChecks, names: FieldNames, code: NdsErrorCode): void {
  for (const [name, value] of Object.entries(object)) {
    if (!Object.hasOwn(checks, name)) throw unknownField(name, Object.keys(checks), names, code);
    const check = checks[name];
    if (check && value !== undefined) checked(value, check, (names.prefix ?? '') + name, code);
  }
}

/** The error for an unknown field: its camel case, what other tools mean by it, a name that is near, or all names. */
export function unknownField(name: string, known: readonly string[], { plural, knowsForeign }: FieldNames, code: NdsErrorCode): NdsError {
  const singular = plural.replace(/s\b/, '');
  const camel = camelCase(name);
  if (known.includes(camel)) return new NdsError(code, `Expected the ${singular} ${camel}, in camel case, but received '${name}'`);
  const answer = knowsForeign ? foreignAnswer(name, known, (ours) => ours) : null;
  if (answer !== null) return new NdsError(code, `Expected a known ${singular} but received '${name}': ${answer}`);
  const near = nearest(name, known);
  if (near !== null) return new NdsError(code, `Expected a known ${singular} but received '${name}' (did you mean ${near}?)`);
  return unexpected(code, `${plural} among ${known.join(', ')}`, null, name, (text) => `'${text}'`);
}
