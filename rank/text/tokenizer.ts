/** Tokenization and detokenization by the files of the model's folder. */
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { AddedTokens } from './added-tokens.ts';
import { Detokenizer } from './detokenizer.ts';
import { EncodeThread } from './encode-thread.ts';
import { MarkedDetokenizer } from './marked-detokenizer.ts';
import { mergeTokenizer } from './merged-tokenizer.ts';
import { createNormalizer, TextEncoderPipeline } from './text-encoder.ts';
import { TokenBytes } from './token-bytes.ts';
import { readJson, readTokenizerFiles, type TokenizerFiles } from './tokenizer-files.ts';

/** Length of a text, in UTF-16 code units, from which it is encoded in a thread: a few milliseconds of work. */
const minThreadChars = 4096;

/** Max ratio by which canonical composition shortens text: four UTF-16 code units to one. */
const maxNormalizedShrink = 4;

/** The error for text given to, or wanted from, a model without a tokenizer.json. */
export function missingTokenizerError(folder: string): NdsError {
  const file = join(folder, 'tokenizer.json');
  return new NdsError('ERR_TOKENIZER', `Expected ${file} for text prompts, text output or stop strings but received a folder without it`);
}

/** Options of encoding. */
export interface EncodeOptions {
  /** Whether to put the special tokens around the text that the tokenizer has for that. Default true. */
  readonly addSpecialTokens?: boolean | undefined;
}

/** Options of decoding. */
export interface DecodeOptions {
  /** Whether to leave out special tokens, such as `</s>`. Default true. */
  readonly skipSpecialTokens?: boolean | undefined;
}

/** Refuses a lone surrogate. */
function checkUnicode(text: string): void {
  const at = text.search(/\p{Surrogate}/u);
  if (at < 0) return;
  const unit = text.charCodeAt(at).toString(16).toUpperCase();
  throw new NdsError('ERR_REQUEST', `Expected well-formed Unicode for the prompt but received a lone surrogate U+${unit} at index ${at}`);
}

const none: ReadonlySet<number> = new Set();

/** A tokenizer; immutable, shared by all requests. */
export class Tokenizer {
  /** Highest token id + 1, added tokens included; the model's vocabulary may be padded beyond it. */
  readonly vocabSize: number;
  /** Ids of special added tokens; decoded text leaves them out. */
  readonly specialTokenIds: ReadonlySet<number>;
  /** `bos_token` and the like by name, as templates get them. */
  readonly specialTokens: Readonly<Record<string, string>>;
  readonly #idOf: (content: string) => number | undefined;
  readonly #tokenBytes: TokenBytes;
  readonly #createEncoder: () => TextEncoderPipeline;
  readonly #thread: EncodeThread | null;
  #encoder: TextEncoderPipeline | undefined;

  /**
   * @param json - the parsed tokenizer.json
   * @param files - the files beside it
   * @param file - path of the former, named in errors
   * @param thread - for long texts; without one they are encoded by the caller's
   */
  constructor(json: unknown, files: Partial<TokenizerFiles>, file: string, thread: EncodeThread | null = null) {
    const merged = mergeTokenizer(json, files, file, createNormalizer);
    const { fixed, vocabulary, normalize, around } = merged;
    const { pieces } = fixed;
    for (const [id, text] of vocabulary.decodedById) pieces[id] = text;
    this.#tokenBytes = new TokenBytes(pieces, fixed.json.decoder, file);
    const splitIds = merged.splitsSpecial ? vocabulary.everSpecialIds : none;
    const addedTokens = new AddedTokens(vocabulary.tokens, { normalize, splitIds });
    this.#createEncoder = () => new TextEncoderPipeline(fixed.json, addedTokens, around, file);
    this.#idOf = (content) => vocabulary.idOf(content);
    this.vocabSize = pieces.length;
    this.specialTokenIds = vocabulary.specialIds;
    this.specialTokens = merged.specialTokens;
    this.#thread = thread;
  }

  /** Id of `bos_token`. */
  get bosTokenId(): number | undefined {
    return this.#idOf(this.specialTokens['bos_token'] ?? '');
  }

  /** Id of `eos_token`; generation_config.json may name more. */
  get eosTokenId(): number | undefined {
    return this.#idOf(this.specialTokens['eos_token'] ?? '');
  }

  /**
   * Loads a model folder's tokenizer.json and the files beside it.
   *
   * @returns `undefined` if the folder has no tokenizer.json: such a model takes and returns token ids only, and a
   * caller that is asked for text throws `missingTokenizerError`
   * @throws NdsError ERR_TOKENIZER for a file that is broken or unsupported, as far as that is known before `prepare`
   */
  static async load(folder: string): Promise<Tokenizer | undefined> {
    const file = join(folder, 'tokenizer.json');
    const [json, files] = await Promise.all([readJson(file), readTokenizerFiles(folder)]);
    return json === undefined ? undefined : new Tokenizer(json, files, file, new EncodeThread(folder));
  }

  /**
   * Builds the encoder, which the first `encode` would do otherwise: a large vocabulary takes a good part of a second,
   * which loading can overlap with other work.
   *
   * @throws NdsError ERR_TOKENIZER for a tokenizer that does not work
   */
  prepare(): void {
    this.#encoder ??= this.#createEncoder();
  }

  /**
   * Max length of a text of `maxTokens` tokens, in UTF-16 code units. A longer text does not fit and need not be
   * encoded.
   */
  maxPromptChars(maxTokens: number): number {
    return maxTokens * this.#tokenBytes.maxLength * maxNormalizedShrink;
  }

  /**
   * Encodes a text, with the special tokens that the tokenizer puts around it. Special tokens spelled out in the text
   * are encoded as themselves, as in Hugging Face transformers.
   *
   * @throws NdsError ERR_REQUEST for text with a lone surrogate, which is not Unicode text and has no UTF-8 form
   */
  encode(text: string, options: EncodeOptions = {}): number[] {
    checkUnicode(text);
    this.#encoder ??= this.#createEncoder();
    return this.#encoder.encode(text, options.addSpecialTokens ?? true);
  }

  /**
   * The same, in a thread where the text is long: nothing else waits for it then. The thread has the tokenizer once
   * more, from the first long text on.
   *
   * @throws NdsError as `encode`; ERR_CLOSED after `close()`
   */
  encodeAsync(text: string, options: EncodeOptions = {}): number[] | Promise<number[]> {
    if (this.#thread === null || text.length < minThreadChars) return this.encode(text, options);
    checkUnicode(text);
    return this.#thread.encode(text, options.addSpecialTokens ?? true);
  }

  /** Ends the thread for long texts; may be called more than once. */
  async close(): Promise<void> {
    await this.#thread?.close();
  }

  /** Decodes a whole text, by default without special tokens. */
  decode(tokenIds: readonly number[], options: DecodeOptions = {}): string {
    const detokenizer = this.detokenizer([], options);
    return detokenizer.push(tokenIds) + detokenizer.finish();
  }

  /**
   * Text of one token in mid-text, e.g. for its log-probability: special tokens are included, a leading space is kept,
   * and bytes of an incomplete character become U+FFFD. Empty for an id without a piece.
   */
  tokenText(id: number): string {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.#tokenBytes.get(id));
  }

  /** The first id that has other text in `other`, or is special in only one of them; null where there is none. */
  firstDifference(other: Tokenizer): number | null {
    for (let id = 0; id < Math.max(this.vocabSize, other.vocabSize); id++) {
      const isSame = Buffer.compare(this.#tokenBytes.get(id), other.#tokenBytes.get(id)) === 0;
      if (!isSame || this.specialTokenIds.has(id) !== other.specialTokenIds.has(id)) return id;
    }
    return null;
  }

  /**
   * A streaming decoder for one sequence.
   *
   * @param promptTokenIds - the preceding tokens: if they have any text, a leading space is kept
   */
  detokenizer(promptTokenIds: readonly number[] = [], { skipSpecialTokens = true }: DecodeOptions = {}): Detokenizer {
    const skipTokenIds = skipSpecialTokens ? this.specialTokenIds : none;
    const continuing = promptTokenIds.some((id) => !skipTokenIds.has(id) && this.#tokenBytes.get(id).length > 0);
    return new Detokenizer(this.#tokenBytes, { skipTokenIds, continuing });
  }
  /** The same with special tokens, marked where `skipSpecialTokens` hides them; null where nothing is hidden. */
  markedDetokenizer(promptTokenIds: readonly number[] = [], { skipSpecialTokens = true }: DecodeOptions = {}): MarkedDetokenizer | null {
    if (!skipSpecialTokens || this.specialTokenIds.size === 0) return null;
    const whole = this.detokenizer(promptTokenIds, { skipSpecialTokens: false });
    return new MarkedDetokenizer(whole, (id) => (this.specialTokenIds.has(id) ? this.tokenText(id) : null));
  }
}
