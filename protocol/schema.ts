/** Schemas of messages: which fields an object must have, each with a predicate; no others are allowed. */
import { type Check, isObject } from './checks.ts';

export type Predicate = (value: unknown) => boolean;
export type Schema = Readonly<Record<string, Predicate>>;

/** The predicate of a check. */
export const takes =
  (check: Check<unknown>): Predicate =>
  (value) =>
    check.read(value) !== undefined;

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
