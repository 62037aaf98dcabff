/** JSON output with snake_case keys, the field's convention. */
import { isObject } from './checks.ts';

/** `value` as JSON. camelCase keys become snake_case; others, such as environment variables, are unchanged. */
export function publicJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, (_, inner) => (isObject(inner) ? snakeKeys(inner) : inner), indent);
}

function snakeKeys(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [snakeCase(key), value]));
}

function snakeCase(key: string): string {
  return /^[a-z][a-zA-Z0-9]*$/.test(key) ? key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : key;
}
