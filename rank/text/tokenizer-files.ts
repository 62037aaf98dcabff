/** Reads the files of a model folder that say what its tokenizer is. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isObject } from '../../protocol/checks.ts';
import { describeJson, NdsError, unexpected } from '../../protocol/errors.ts';

/** Max file size in bytes; the largest published tokenizer.json is about 35 MB. */
const maxFileBytes = 256 * 2 ** 20;

/** A JSON object whose fields are unchecked. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** The parsed files beside tokenizer.json. */
export interface TokenizerFiles {
  /** tokenizer_config.json; empty if there is none. */
  readonly config: JsonObject;
  /** special_tokens_map.json; `null` if there is none. */
  readonly specialTokensMap: JsonObject | null;
  /** added_tokens.json: an id by content; `null` if there is none. */
  readonly addedTokens: JsonObject | null;
  /** config.json, of the model; empty if there is none. */
  readonly modelConfig: JsonObject;
  /** The folder, named in errors. */
  readonly folder: string;
}

function isMissing(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** Reads a text file; `undefined` if it does not exist. @throws NdsError ERR_TOKENIZER when it cannot be read. */
export async function readText(file: string): Promise<string | undefined> {
  try {
    const { size } = await stat(file);
    if (size > maxFileBytes) throw new NdsError('ERR_TOKENIZER', `Expected at most ${maxFileBytes} bytes for ${file} but received ${size}`);
    return await readFile(file, 'utf8');
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (error instanceof NdsError) throw error;
    throw new NdsError('ERR_TOKENIZER', `Expected a readable file for ${file} but received: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Reads a JSON file; `undefined` if it does not exist.
 * @throws NdsError ERR_TOKENIZER when it cannot be read or parsed.
 */
export async function readJson(file: string): Promise<unknown> {
  const text = await readText(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new NdsError('ERR_TOKENIZER', `Expected JSON for ${file} but received: ${(error as Error).message}`, { cause: error });
  }
}

/** Reads an object; `null` if there is no such file. @throws NdsError ERR_TOKENIZER for anything else. */
export async function readObject(file: string): Promise<JsonObject | null> {
  const value = await readJson(file);
  if (value === undefined) return null;
  if (!isObject(value)) throw unexpected('ERR_TOKENIZER', 'an object', file, value, describeJson);
  return value;
}

/** Reads the files beside tokenizer.json. @throws NdsError ERR_TOKENIZER for a broken one. */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const names = ['tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'config.json'];
  const objects = await Promise.all(names.map((name) => readObject(join(folder, name))));
  const [config, specialTokensMap, addedTokens, modelConfig] = objects as [JsonObject | null, ...(JsonObject | null)[]];
  return {
    config: config ?? {},
    specialTokensMap: specialTokensMap ?? null,
    addedTokens: addedTokens ?? null,
    modelConfig: modelConfig ?? {},
    folder,
  };
}
