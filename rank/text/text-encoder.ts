/** Encodes text with the components of `@huggingface/tokenizers`; the search for added tokens is our own. */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { NdsError } from '../../protocol/errors.ts';
import { AddedTokens } from './added-tokens.ts';
import type { TokenizerJson } from './tokenizer-json.ts';

/** Placeholder for the text in the post-processor's template. */
const textMark = '\udc00';

function create<T>(file: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof NdsError) throw error;
    const message = `Expected a valid tokenizer for ${file} but received: ${(error as Error).message}`;
    throw new NdsError('ERR_TOKENIZER', message, { cause: error });
  }
}

function createPackageTokenizer(json: TokenizerJson): HuggingFaceTokenizer {
  return new HuggingFaceTokenizer({ ...json, added_tokens: [] }, { clean_up_tokenization_spaces: false });
}

/**
 * A tokenizer's normalizer, created without its vocabulary, which would take long.
 * @throws NdsError ERR_TOKENIZER for a broken one.
 */
export function createNormalizer(json: TokenizerJson, file: string): (text: string) => string {
  if (json.normalizer === null) return (text) => text;
  const { normalizer } = create(file, () => createPackageTokenizer({ ...json, model: { ...json.model, vocab: {}, merges: [] } }));
  return (text) => normalizer?._call(text) ?? text;
}

/** Encodes texts. Created once per tokenizer, as a large vocabulary takes a good part of a second. */
export class TextEncoderPipeline {
  readonly #tokenizer: HuggingFaceTokenizer;
  readonly #addedTokens: AddedTokens;
  readonly #before: readonly number[];
  readonly #after: readonly number[];

  /**
   * @param file - named in errors
   * @throws NdsError ERR_TOKENIZER for a tokenizer that does not work
   */
  constructor(json: TokenizerJson, normalize: (text: string) => string, file: string) {
    this.#tokenizer = create(file, () => createPackageTokenizer(json));
    this.#addedTokens = create(file, () => new AddedTokens(json.added_tokens, normalize));
    const addedIds = new Map(json.added_tokens.map(({ content, id }) => [content, id]));
    const idOf = (token: string): number => {
      const id = addedIds.get(token) ?? this.#tokenizer.token_to_id(token);
      if (id !== undefined) return id;
      throw new NdsError(
        'ERR_TOKENIZER',
        `Expected the vocabulary to have every token of the post_processor for ${file} but received ${JSON.stringify(token)} without an id`,
      );
    };
    const around = create(file, () => this.#tokenizer.post_processor?._call([textMark], null, true).tokens ?? [textMark]);
    const at = around.indexOf(textMark);
    this.#before = around.slice(0, Math.max(0, at)).map(idOf);
    this.#after = around.slice(at + 1).map(idOf);
    // Some components are only checked in use.
    create(file, () => this.encode('a', true));
  }

  /** Token ids of a text, with the post-processor's special tokens around it. */
  encode(text: string, addSpecialTokens: boolean): number[] {
    const ids = this.#addedTokens.split(text).flatMap((section) => ('id' in section ? [section.id] : this.#encodeText(section)));
    return addSpecialTokens ? [...this.#before, ...ids, ...this.#after] : ids;
  }

  /** Encodes normalized text that contains no added tokens. */
  #encodeText({ text, isFirst }: { text: string; isFirst: boolean }): number[] {
    const { pre_tokenizer, model } = this.#tokenizer;
    const words = pre_tokenizer === null ? [text] : pre_tokenizer._call(text, { section_index: isFirst ? 0 : 1 });
    const tokens = model?._call(words) ?? [];
    return tokens.flatMap((token: string) => this.#tokenizer.token_to_id(token) ?? []);
  }
}
