/** JSON files of a checkpoint, read defensively: every complaint names the file and the key. */
import { readFileSync, statSync } from 'node:fs';
import { isObject } from '../../protocol/checks.ts';
import { describeJson, NdsError, type NdsErrorCode } from '../../protocol/errors.ts';

/** A JSON object as `JSON.parse` returns it; only its own properties are read. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Max size of a configuration file, in bytes. */
const maxConfigBytes = 16 * 1024 * 1024;

/**
 * Bytes of the regular file at `path`, or `undefined` when nothing is there. Follows links: download caches consist of
 * them.
 * @throws NdsError `code` when something else is there, or when it cannot be inspected.
 */
export function fileSize(path: string, code: NdsErrorCode): number | undefined {
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return undefined;
    if (stats.isFile()) return stats.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined;
    throw new NdsError(code, `Expected to read ${path} but received ${(error as Error).message}`, { cause: error });
  }
  throw new NdsError(code, `Expected a regular file at ${path} but received a folder or device`);
}

/**
 * Reads a file that holds one JSON object.
 * @throws NdsError `code` when it is missing, larger than `maxBytes`, or not UTF-8, JSON or an object.
 */
export function readJsonFile(path: string, code: NdsErrorCode, maxBytes = maxConfigBytes): { object: JsonObject; text: string } {
  const size = fileSize(path, code);
  if (size === undefined) throw new NdsError(code, `Expected a file at ${path} but received nothing there`);
  if (size > maxBytes) throw new NdsError(code, `Expected ${path} to have at most ${maxBytes} bytes but received ${size}`);
  try {
    return parseJsonObject(readFileSync(path), path, code);
  } catch (error) {
    if (error instanceof NdsError) throw error;
    throw new NdsError(code, `Expected to read ${path} but received ${(error as Error).message}`, { cause: error });
  }
}

/** @throws NdsError `code`, naming `what`, when `bytes` are not UTF-8, JSON or an object. */
export function parseJsonObject(bytes: Uint8Array, what: string, code: NdsErrorCode): { object: JsonObject; text: string } {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new NdsError(code, `Expected UTF-8 in ${what} but received other bytes`, { cause });
  }
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new NdsError(code, `Expected JSON in ${what} but received ${(cause as Error).message}`, { cause });
  }
  if (!isObject(value)) throw new NdsError(code, `Expected a JSON object in ${what} but received ${describeJson(value)}`);
  return { object: value, text };
}

/**
 * The first key that an object of this valid JSON text holds twice; `JSON.parse` would silently keep the last.
 * One pass over the text, with a set of keys per open object.
 */
export function findDuplicateKey(text: string): string | undefined {
  const open: (Set<string> | null)[] = []; // null = an array
  let expectsKey = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') {
      const begin = i;
      i = closingQuote(text, i);
      const token = text.slice(begin, i + 1);
      const keys = open.at(-1);
      if (!expectsKey || !keys) continue;
      const key = token.includes('\\') ? (JSON.parse(token) as string) : token.slice(1, -1);
      if (keys.has(key)) return key;
      keys.add(key);
      expectsKey = false;
    } else if (c === '{' || c === '[') {
      open.push(c === '{' ? new Set() : null);
      expectsKey = c === '{';
    } else if (c === '}' || c === ']') {
      open.pop();
      expectsKey = false;
    } else if (c === ',') {
      expectsKey = open.at(-1) !== null;
    }
  }
  return undefined;
}

/** Index of the closing quote of the string that begins at `begin`. */
function closingQuote(text: string, begin: number): number {
  for (let end = text.indexOf('"', begin + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let numBackslashes = 0;
    while (text[end - 1 - numBackslashes] === '\\') numBackslashes++;
    if (numBackslashes % 2 === 0) return end;
  }
  return text.length;
}
