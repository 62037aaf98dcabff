/** Schemas of messages: which fields an object must have, each with a predicate; no others are allowed. */
import { boolean, type Check, integerIn, isObject } from './checks.ts';
import type { NdsError } from './errors.ts';

export type Predicate = (value: unknown) => boolean;
export type Schema = Readonly<Record<string, Predicate>>;

/** The predicate of a check. */
export const takes =
  (check: Check<unknown>): Predicate =>
  (value) =>
    check.read(value) !== undefined;

export const isCount = takes(integerIn(0, Number.MAX_SAFE_INTEGER));
export const isBoolean = takes(boolean);
export const isString: Predicate = (value) => typeof value === 'string';

export const listOf =
  (check: Predicate): Predicate =>
  (value) =>
    Array.isArray(value) && value.every(check);

export const orNull =
  (check: Predicate): Predicate =>
  (value) =>
    value === null || check(value);

/** The predicate of a nested object. */
export const objectOf =
  (schema: Schema): Predicate =>
  (value) =>
    isObject(value) && mismatch(value, schema) === undefined;

/** The first field that is missing, unknown or of a wrong type. */
export function mismatch(value: Record<string, unknown>, schema: Schema): string | undefined {
  for (const [key, check] of Object.entries(schema)) {
    if (!Object.hasOwn(value, key)) return `no field '${key}'`;
    if (!check(value[key])) return `${JSON.stringify(value[key])?.slice(0, 80)} in field '${key}'`;
  }
  const unknown = Object.keys(value).find((key) => !Object.hasOwn(schema, key));
  return unknown === undefined ? undefined : `the unknown field '${unknown}'`;
}

/**
 * Checks a message: an object whose `type` names its schema.
 * @param bad - the error for what was received
 */
export function checkMessage(value: unknown, schemas: Readonly<Record<string, Schema>>, bad: (received: string) => NdsError): void {
  if (!isObject(value)) throw bad('something other than an object');
  const { type, ...fields } = value;
  const schema = typeof type === 'string' && Object.hasOwn(schemas, type) ? schemas[type] : undefined;
  if (schema === undefined) throw bad(`type ${JSON.stringify(type)?.slice(0, 80)}`);
  const wrong = mismatch(fields, schema);
  if (wrong !== undefined) throw bad(`'${type}' with ${wrong}`);
}
