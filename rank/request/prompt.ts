/** Prompts: text or token ids, validated and encoded before anything is scheduled. */
import { isObject } from '../../protocol/checks.ts';
import { NdsError, unexpected } from '../../protocol/errors.ts';
import { missingTokenizerError, type Tokenizer } from '../text/tokenizer.ts';

/** Token ids as an array or a typed array. */
export type TokenIds = readonly number[] | Int32Array | Uint32Array;

/** Text, which is tokenized, or token ids, which are used as given. */
export type Prompt = string | { readonly promptTokenIds: TokenIds };

/** A prompt as token ids. */
export interface EncodedPrompt {
  /** Null when the prompt was given as token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
}

/** A conversation rendered by a chat template, with its tokens. */
export class ChatPrompt implements EncodedPrompt {
  readonly prompt: string;
  readonly promptTokenIds: readonly number[];

  private constructor(prompt: string, promptTokenIds: readonly number[]) {
    this.prompt = prompt;
    this.promptTokenIds = promptTokenIds;
  }

  /** Adds no special tokens: the template wrote them. @throws NdsError as `encodePrompt`. */
  static async encode(text: string, tokenizer: Tokenizer | undefined, limits: PromptLimits): Promise<ChatPrompt> {
    return new ChatPrompt(text, await encodeText(text, tokenizer, limits, false));
  }
}

/** Limits that prompts are validated against. */
export interface PromptLimits {
  /** Folder of the model, named in errors. */
  readonly modelPath: string;
  readonly vocabSize: number;
  readonly maxModelLen: number;
  /** Tokens that stand for images and videos, by the key of config.json that names them: refused. */
  readonly imageTokens: readonly { readonly id: number; readonly key: string }[];
}

/**
 * Encodes one prompt; a promise for a long text, which a thread encodes.
 * @param numToGenerate - context positions to leave for generated tokens
 * @throws NdsError `ERR_REQUEST` when it is empty, ill-formed, too long for `maxModelLen`, or has ids outside the
 * vocabulary; `ERR_TOKENIZER` for text where the model has no tokenizer.
 */
export function encodePrompt(
  prompt: unknown,
  tokenizer: Tokenizer | undefined,
  limits: PromptLimits,
  numToGenerate: 0 | 1 = 1,
): EncodedPrompt | Promise<EncodedPrompt> {
  if (typeof prompt === 'string') {
    const ids = encodeText(prompt, tokenizer, limits, true, numToGenerate);
    return ids instanceof Promise ? ids.then((promptTokenIds) => ({ prompt, promptTokenIds })) : { prompt, promptTokenIds: ids };
  }
  if (prompt instanceof ChatPrompt) return prompt;
  if (!isObject(prompt) || !Object.hasOwn(prompt, 'promptTokenIds')) {
    throw unexpected('ERR_REQUEST', 'a string or { promptTokenIds }', 'the prompt', prompt);
  }
  const { promptTokenIds, ...others } = prompt as { promptTokenIds: unknown };
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) throw new NdsError('ERR_REQUEST', `Expected only promptTokenIds in the prompt but received '${unknown}'`);
  return { prompt: null, promptTokenIds: checkTokenIds(promptTokenIds, limits, numToGenerate) };
}

/** All prompts once encoded; a promise where one is long. */
export function whenEncoded(prompts: readonly (EncodedPrompt | Promise<EncodedPrompt>)[]): EncodedPrompt[] | Promise<EncodedPrompt[]> {
  return prompts.some((prompt) => prompt instanceof Promise) ? Promise.all(prompts) : (prompts as EncodedPrompt[]);
}

/**
 * Validates token ids and copies them.
 * @param numToGenerate - context positions to leave for generated tokens
 * @throws NdsError `ERR_REQUEST` when there are none or too many, or one is outside the vocabulary.
 */
export function checkTokenIds(tokenIds: unknown, limits: PromptLimits, numToGenerate: 0 | 1): number[] {
  const { vocabSize, maxModelLen, imageTokens } = limits;
  const { length } = checkList(tokenIds, 'promptTokenIds');
  if (length === 0) throw new NdsError('ERR_REQUEST', 'Expected at least one token for the prompt but received none');
  if (length > maxModelLen - numToGenerate) throw tooLong(`${length} tokens`, limits, numToGenerate);
  const ids = copyTokenIds(tokenIds, vocabSize, 'promptTokenIds');
  const image = imageTokens.find(({ id }) => ids.includes(id));
  if (image !== undefined) throw unexpected('ERR_REQUEST', `text alone, without ${image.key},`, 'the prompt', image.id);
  return ids;
}

/** Copies token ids. @param name - named in errors @throws NdsError `ERR_REQUEST` for one outside the vocabulary. */
export function copyTokenIds(tokenIds: unknown, vocabSize: number, name: string): number[] {
  const ids: number[] = Array.from(checkList(tokenIds, name));
  const wrong = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (wrong >= 0) throw unexpected('ERR_REQUEST', `a token id from 0 to ${vocabSize - 1}`, `${name}[${wrong}]`, ids[wrong]);
  return ids;
}

function checkList(tokenIds: unknown, name: string): ArrayLike<number> {
  if (Array.isArray(tokenIds) || tokenIds instanceof Int32Array || tokenIds instanceof Uint32Array) return tokenIds;
  throw unexpected('ERR_REQUEST', 'an array of token ids', name, tokenIds);
}

function encodeText(
  text: string,
  tokenizer: Tokenizer | undefined,
  limits: PromptLimits,
  addSpecialTokens: boolean,
  numToGenerate: 0 | 1 = 1,
): number[] | Promise<number[]> {
  if (tokenizer === undefined) throw missingTokenizerError(limits.modelPath);
  if (text === '') throw new NdsError('ERR_REQUEST', 'Expected text for the prompt but received an empty string');
  // Text that cannot fit is not tokenized: that takes long.
  if (text.length > tokenizer.maxPromptChars(limits.maxModelLen)) throw tooLong(`${text.length} characters`, limits, numToGenerate);
  const ids = tokenizer.encodeAsync(text, { addSpecialTokens });
  return ids instanceof Promise
    ? ids.then((some) => checkTokenIds(some, limits, numToGenerate))
    : checkTokenIds(ids, limits, numToGenerate);
}

function tooLong(received: string, { maxModelLen }: PromptLimits, numToGenerate: number): NdsError {
  const room = numToGenerate === 0 ? '' : ' less one to generate';
  const expected = `a prompt of at most ${maxModelLen - numToGenerate} tokens (maxModelLen${room})`;
  return new NdsError('ERR_REQUEST', `Expected ${expected} but received ${received}`);
}
