/** Arguments put in the places of parameters, and read as the types that these take. */
import { TemplateError } from './errors.ts';
import { type Arguments, textOf, toInt, typeName, type Value } from './values.ts';

/** An argument that was not given, unlike one that is Undefined. */
export const absent = Symbol('absent');

/**
 * Arranges positional and named arguments by parameter; the first `numNeeded` have no default.
 * @throws TemplateError for too many, too few or unknown ones.
 */
export function bindExactly(
  name: string,
  parameters: readonly string[],
  numNeeded: number,
  { positional, keywords }: Arguments,
): (Value | typeof absent)[] {
  if (positional.length > parameters.length) {
    throw new TemplateError(`${name}() takes at most ${parameters.length} arguments, not ${positional.length}`);
  }
  const args = parameters.map((_, i): Value | typeof absent => (i < positional.length ? positional[i] : absent));
  for (const [key, value] of keywords) {
    const at = parameters.indexOf(key);
    if (at < 0) throw new TemplateError(`${name}() got an unexpected keyword argument '${key}'`);
    if (args[at] !== absent) throw new TemplateError(`${name}() got multiple values for argument '${key}'`);
    args[at] = value;
  }
  const missing = args.slice(0, numNeeded).indexOf(absent);
  if (missing >= 0) throw new TemplateError(`${name}() is missing the argument '${parameters[missing]}'`);
  return args;
}

/** As `bindExactly`, with Undefined for what was not given. */
export function bind(name: string, parameters: readonly string[], numNeeded: number, args: Arguments): Value[] {
  return bindExactly(name, parameters, numNeeded, args).map((value) => (value === absent ? undefined : value));
}

export function needText(value: Value, what: string): string {
  const text = textOf(value);
  if (text === undefined) throw new TemplateError(`${what} must be str, not ${typeName(value)}`);
  return text;
}

export function needInt(value: Value, what: string): number {
  const number = toInt(value);
  if (number === undefined) throw new TemplateError(`${what} must be int, not ${typeName(value)}`);
  return number;
}

/** An integer argument; `otherwise` for Undefined and None. */
export function optionalInt(value: Value, otherwise: number, what: string): number {
  return value === undefined || value === null ? otherwise : needInt(value, what);
}

/** A text argument; null for Undefined and None. */
export function optionalText(value: Value, what: string): string | null {
  return value === undefined || value === null ? null : needText(value, what);
}
