/**
 * Encodes text with the normalizers and pre-tokenizers of `@huggingface/tokenizers`; the search for added tokens and
 * the merges are our own.
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { NdsError } from '../../protocol/errors.ts';
import type { AddedTokens } from './added-tokens.ts';
import { Bpe } from './bpe.ts';
import type { AroundText } from './post-processor.ts';
import type { TokenizerJson } from './tokenizer-json.ts';

function create<T>(file: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof NdsError) throw error;
    const message = `Expected a valid tokenizer for ${file} but received: ${(error as Error).message}`;
    throw new NdsError('ERR_TOKENIZER', message, { cause: error });
  }
}

/** The package's components without its model, whose vocabulary takes long to read. */
function createComponents(json: TokenizerJson): HuggingFaceTokenizer {
  const model = { type: 'BPE', vocab: {}, merges: [] };
  return new HuggingFaceTokenizer(
    { ...json, model, added_tokens: [], post_processor: null, decoder: null },
    { clean_up_tokenization_spaces: false },
  );
}

/**
 * A tokenizer's normalizer.
 * @throws NdsError ERR_TOKENIZER for a broken one.
 */
export function createNormalizer(json: TokenizerJson, file: string): (text: string) => string {
  if (json.normalizer === null) return (text) => text;
  const { normalizer } = create(file, () => createComponents({ ...json, pre_tokenizer: null }));
  return (text) => normalizer?._call(text) ?? text;
}

/** Encodes texts. Created once per tokenizer, as a large vocabulary takes a good part of a second. */
export class TextEncoderPipeline {
  readonly #components: HuggingFaceTokenizer;
  readonly #bpe: Bpe;
  readonly #addedTokens: AddedTokens;
  readonly #around: AroundText;

  /**
   * @param around - ids that the post-processor puts around a text
   * @param file - named in errors
   * @throws NdsError ERR_TOKENIZER for a tokenizer that does not work
   */
  constructor(json: TokenizerJson, addedTokens: AddedTokens, around: AroundText, file: string) {
    this.#components = create(file, () => createComponents(json));
    this.#bpe = create(file, () => new Bpe(json.model));
    this.#addedTokens = addedTokens;
    this.#around = around;
    // Some components are only checked in use.
    create(file, () => this.#words('a', true));
  }

  /** Token ids of a text, with the post-processor's special tokens around it. */
  encode(text: string, addSpecialTokens: boolean): number[] {
    const ids: number[] = addSpecialTokens ? [...this.#around.before] : [];
    for (const section of this.#addedTokens.split(text)) {
      if ('id' in section) ids.push(section.id);
      else for (const word of this.#words(section.text, section.isFirst)) for (const id of this.#bpe.encode(word)) ids.push(id);
    }
    if (addSpecialTokens) ids.push(...this.#around.after);
    return ids;
  }

  /** Splits normalized text that contains no added tokens. */
  #words(text: string, isFirst: boolean): readonly string[] {
    const { pre_tokenizer } = this.#components;
    return pre_tokenizer === null ? [text] : pre_tokenizer._call(text, { section_index: isFirst ? 0 : 1 });
  }
}
