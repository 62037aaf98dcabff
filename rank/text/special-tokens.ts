/**
 * Merges what the files of a folder say of special and added tokens, in the order of Hugging Face transformers 5: the
 * class's defaults, then tokenizer_config.json; without `added_tokens_decoder` in it, special_tokens_map.json over both
 * and added_tokens.json.
 */
import { isObject } from '../../protocol/checks.ts';
import { describeJson, type NdsError, unexpected } from '../../protocol/errors.ts';
import type { TokenSpec } from './added-tokens.ts';
import type { TokenizerClass } from './tokenizer-class.ts';
import type { JsonObject, TokenizerFiles } from './tokenizer-files.ts';

/** Names of special tokens, in the order in which they are added. */
const standardNames = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

/** A token by its text alone, or with flags. */
type TokenValue = string | TokenSpec;

/** What the files say together. */
export interface SpecialTokens {
  /** Tokens by name: `bos_token` and the like, then those that only this model has, such as `image_token`. */
  readonly named: ReadonlyMap<string, TokenValue>;
  /** Further special tokens. */
  readonly extra: readonly TokenValue[];
  /** Tokens of added_tokens_decoder or, without it, of added_tokens.json and tokenizer.json; by ascending key. */
  readonly listed: readonly TokenSpec[];
  /** The merged settings: tokenizer_config.json's keys, and special_tokens_map.json's where it counts. */
  readonly settings: JsonObject;
}

/** The text of a token. */
export function contentOf(token: TokenValue): string {
  return typeof token === 'string' ? token : token.content;
}

/** A token given by its text: special, and not normalized. */
export function specialToken(content: string): TokenSpec {
  return { content, special: true, normalized: false, lstrip: false, rstrip: false };
}

/** Reads and merges the special tokens of one folder. */
export class SpecialTokenReader {
  readonly #files: TokenizerFiles;
  readonly #class: TokenizerClass;
  /** Merged step by step. */
  readonly #settings: Map<string, unknown>;
  readonly #listed = new Map<number, TokenSpec>();

  constructor(files: TokenizerFiles, tokenizerClass: TokenizerClass) {
    this.#files = files;
    this.#class = tokenizerClass;
    this.#settings = new Map(Object.entries(files.config));
    // Transformers ignores these beside a tokenizer.json, whose post-processor says it.
    for (const key of ['tokenizer_class', 'add_bos_token', 'add_eos_token']) this.#settings.delete(key);
  }

  /**
   * @param fileTokens - `added_tokens` of tokenizer.json
   * @param paddingToken - `padding.pad_token` of tokenizer.json, which counts where no file has the key `pad_token`
   * @throws NdsError ERR_TOKENIZER naming the file and key of a value of a wrong type.
   */
  read(fileTokens: readonly (TokenSpec & { readonly id: number })[], paddingToken: unknown): SpecialTokens {
    this.#renameExtra();
    const own = this.#takeOwnNames();
    if (this.#settings.has('added_tokens_decoder')) this.#readDecoder();
    else this.#readLegacyFiles(own, fileTokens);
    for (const name of Object.keys(this.#class.defaults)) {
      if (!this.#settings.has(name)) this.#settings.set(name, this.#class.defaults[name]);
    }
    if (!this.#settings.has('pad_token') && typeof paddingToken === 'string') this.#settings.set('pad_token', paddingToken);
    const byContent = new Map([...this.#listed.values()].map((token) => [token.content, token]));
    const named = new Map<string, TokenValue | null>();
    for (const name of standardNames) {
      const token = this.#tokenAt(name);
      named.set(name, token && (byContent.get(contentOf(token)) ?? token));
    }
    const extra = this.#readExtra(named);
    for (const [name, token] of this.#otherNames()) named.set(name, token);
    for (const [name, value] of own) named.set(name, this.#toToken(value, name));
    const listed = [...this.#listed].sort(([a], [b]) => a - b).map(([, token]) => token);
    for (const [name, token] of named) if (token === null) named.delete(name);
    return { named: named as Map<string, TokenValue>, extra, listed, settings: Object.fromEntries(this.#settings) };
  }

  #refuse(expected: string, key: string, value: unknown): NdsError {
    const { folder } = this.#files;
    return unexpected('ERR_TOKENIZER', `${expected} as ${key}`, `the tokenizer files of ${folder}`, value, describeJson);
  }

  /** `additional_special_tokens` is the old name of `extra_special_tokens`. */
  #renameExtra(): void {
    if (!this.#settings.has('additional_special_tokens')) return;
    const value = this.#settings.get('additional_special_tokens');
    this.#settings.delete('additional_special_tokens');
    if (!this.#settings.has('extra_special_tokens')) this.#settings.set('extra_special_tokens', value);
  }

  /** Names that only this model has: `*_token` by its text, and a dictionary of extra tokens. */
  #takeOwnNames(): Map<string, unknown> {
    const own = new Map<string, unknown>();
    for (const [key, value] of this.#settings) {
      if (standardNames.includes(key) || !key.endsWith('_token') || typeof value !== 'string') continue;
      own.set(key, value);
      this.#settings.delete(key);
    }
    this.#takeExtraNames(own);
    if (own.size > 0) return own;
    const given = this.#settings.get('model_specific_special_tokens') ?? {};
    if (!isObject(given)) throw this.#refuse('an object', 'model_specific_special_tokens', given);
    return new Map(Object.entries(given));
  }

  #takeExtraNames(own: Map<string, unknown>): void {
    const extra = this.#settings.get('extra_special_tokens');
    if (!isObject(extra)) return;
    for (const [key, value] of Object.entries(extra)) own.set(key, value);
    this.#settings.delete('extra_special_tokens');
  }

  #readDecoder(): void {
    const decoder = this.#settings.get('added_tokens_decoder');
    if (!isObject(decoder)) throw this.#refuse('an object', 'added_tokens_decoder', decoder);
    for (const [key, value] of Object.entries(decoder)) {
      const id = Number(key);
      if (!Number.isSafeInteger(id)) throw this.#refuse('ids as keys', 'added_tokens_decoder', key);
      this.#listed.set(id, this.#toSpec(value, `added_tokens_decoder of ${key}`));
    }
  }

  /** Files that count without `added_tokens_decoder` alone. */
  #readLegacyFiles(own: Map<string, unknown>, fileTokens: readonly (TokenSpec & { readonly id: number })[]): void {
    const { specialTokensMap, addedTokens } = this.#files;
    for (const [key, value] of Object.entries(specialTokensMap ?? {})) {
      const isToken = isObject(value) && key !== 'extra_special_tokens';
      this.#settings.set(key, isToken ? this.#toSpec({ ...value, special: true }, key) : this.#mergeExtra(key, value));
    }
    if (specialTokensMap !== null) this.#takeExtraNames(own);
    const values = [...standardNames.map((name) => this.#settings.get(name)), ...this.#extraList()];
    // Here transformers compares with tokens of tokenizer_config.json only where they are given by their text.
    const special = new Set(values.map((value) => (isObject(value) && !('__type' in value) ? value['content'] : value)));
    for (const [content, id] of Object.entries(addedTokens ?? {})) {
      if (!Number.isSafeInteger(id)) throw this.#refuse('an id', `${content} in added_tokens.json`, id);
      const isSpecial = special.has(content);
      this.#listed.set(id as number, { ...specialToken(content), special: isSpecial, normalized: !isSpecial });
    }
    for (const { id, ...token } of fileTokens) this.#listed.set(id, token);
  }

  /** Lists of extra tokens are joined; any other value of the map replaces the one before. */
  #mergeExtra(key: string, value: unknown): unknown {
    if (key !== 'extra_special_tokens' || !Array.isArray(value)) return value;
    const tokens = value.map((item) => (isObject(item) ? this.#toSpec({ ...item, special: true }, key) : (item as unknown)));
    const list = [...this.#extraList()];
    for (const token of tokens) if (!list.some((other) => JSON.stringify(other) === JSON.stringify(token))) list.push(token);
    return list;
  }

  #extraList(): readonly unknown[] {
    const extra = this.#settings.get('extra_special_tokens') ?? [];
    if (!Array.isArray(extra)) throw this.#refuse('a list or an object', 'extra_special_tokens', extra);
    return extra as unknown[];
  }

  /** Extra tokens. Those of special_tokens_map.json under their old name count where nothing has the new one. */
  #readExtra(named: Map<string, TokenValue | null>): TokenValue[] {
    const key = this.#settings.has('extra_special_tokens') ? 'extra_special_tokens' : 'additional_special_tokens';
    const value = this.#settings.get(key) ?? [];
    const { extraNames } = this.#class;
    if (isObject(value) && extraNames.length === 0) {
      for (const [name, token] of Object.entries(value)) named.set(name, this.#toToken(token, name));
      return [];
    }
    if (!Array.isArray(value)) throw this.#refuse('a list or an object', key, value);
    const tokens = value.map((item: unknown) => this.#toToken(item, key));
    if (key === 'extra_special_tokens' || extraNames.length === 0) return tokens;
    return [...tokens, ...extraNames.flatMap((name) => this.#tokenAt(name) ?? [])];
  }

  /** Names that are left among the settings, the class's first. */
  *#otherNames(): Generator<[string, TokenValue]> {
    const names = new Set([...Object.keys(this.#class.defaults), ...this.#settings.keys()]);
    for (const name of names) {
      const value = this.#settings.get(name);
      if (standardNames.includes(name) || !name.endsWith('_token') || !(typeof value === 'string' || isObject(value))) continue;
      yield [name, this.#toToken(value, name)];
    }
  }

  #tokenAt(name: string): TokenValue | null {
    const value = this.#settings.get(name) ?? null;
    return value === null ? null : this.#toToken(value, name);
  }

  #toToken(value: unknown, key: string): TokenValue {
    if (typeof value === 'string') return value;
    if (isObject(value)) return this.#toSpec(value, key);
    throw this.#refuse('a token', key, value);
  }

  #toSpec(value: unknown, key: string): TokenSpec {
    const {
      content,
      special = false,
      normalized = special !== true,
      lstrip,
      rstrip,
      single_word: singleWord,
    } = isObject(value) ? value : {};
    if (typeof content !== 'string') throw this.#refuse('a token', key, value);
    if (singleWord === true) throw this.#refuse('a token without single_word', key, value);
    return { content, special: special === true, normalized: normalized === true, lstrip: lstrip === true, rstrip: rstrip === true };
  }
}
