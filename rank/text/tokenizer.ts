/** Tokenization and detokenization by the model's tokenizer.json. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isObject } from '../../protocol/checks.ts';
import { NdsError } from '../../protocol/errors.ts';
import { Detokenizer } from './detokenizer.ts';
import { createNormalizer, TextEncoderPipeline } from './text-encoder.ts';
import { TokenBytes } from './token-bytes.ts';
import { fixTokenizerJson } from './tokenizer-json.ts';

/** Max file size in bytes; the largest published tokenizer.json is about 35 MB. */
const maxFileBytes = 256 * 2 ** 20;

/** Max ratio by which canonical composition shortens text: four UTF-16 code units to one. */
const maxNormalizedShrink = 4;

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

/**
 * Reads `eos_token` and the like: a string, or an added token as an object.
 * @throws NdsError ERR_TOKENIZER for anything else.
 */
export function readTokenName(config: Record<string, unknown>, key: string, file: string): string | undefined {
  const value = config[key] ?? undefined;
  const name = typeof value === 'object' ? (value as { content?: unknown }).content : value;
  if (name === undefined && value === undefined) return undefined;
  if (typeof name !== 'string') {
    throw new NdsError('ERR_TOKENIZER', `Expected a token as ${key} for ${file} but received ${JSON.stringify(value)}`);
  }
  return name;
}

/** The error for text given to, or wanted from, a model without a tokenizer.json. */
export function missingTokenizerError(folder: string): NdsError {
  const file = join(folder, 'tokenizer.json');
  return new NdsError('ERR_TOKENIZER', `Expected ${file} for text prompts, text output or stop strings but received a folder without it`);
}

/** Options of decoding. */
export interface DecodeOptions {
  /** Whether to leave out special tokens, such as `</s>`. Default true. */
  readonly skipSpecialTokens?: boolean | undefined;
}

const none: ReadonlySet<number> = new Set();

/** A tokenizer; immutable, shared by all requests. */
export class Tokenizer {
  /** Highest token id + 1, added tokens included; the model's vocabulary may be padded beyond it. */
  readonly vocabSize: number;
  /** Ids of added tokens marked special; decoded text leaves them out. */
  readonly specialTokenIds: ReadonlySet<number>;
  /** Id of `bos_token` in tokenizer_config.json. */
  readonly bosTokenId: number | undefined;
  /** Id of `eos_token` in tokenizer_config.json; generation_config.json may name more. */
  readonly eosTokenId: number | undefined;
  readonly #tokenBytes: TokenBytes;
  readonly #createEncoder: () => TextEncoderPipeline;
  #encoder: TextEncoderPipeline | undefined;

  /**
   * @param json - the parsed tokenizer.json
   * @param config - the parsed tokenizer_config.json
   * @param file - path of the former, named in errors
   */
  constructor(json: unknown, config: Record<string, unknown>, file: string) {
    const { json: fixed, pieces } = fixTokenizerJson(json, file);
    const idOf = (key: string): number | undefined => {
      const name = readTokenName(config, key, file);
      if (name === undefined) return undefined;
      const added = fixed.added_tokens.find(({ content }) => content === name);
      return added?.id ?? (Object.hasOwn(fixed.model.vocab, name) ? fixed.model.vocab[name] : undefined);
    };
    const normalize = createNormalizer(fixed, file);
    for (const { id, content, normalized } of fixed.added_tokens) pieces[id] = normalized ? normalize(content) : content;
    this.#tokenBytes = new TokenBytes(pieces, fixed.decoder, file);
    this.#createEncoder = () => new TextEncoderPipeline(fixed, normalize, file);
    this.vocabSize = pieces.length;
    this.specialTokenIds = new Set(fixed.added_tokens.filter(({ special }) => special).map(({ id }) => id));
    this.bosTokenId = idOf('bos_token');
    this.eosTokenId = idOf('eos_token');
  }

  /**
   * Loads a model folder's tokenizer.json and, where it exists, tokenizer_config.json.
   *
   * @returns `undefined` if the folder has no tokenizer.json: such a model takes and returns token ids only, and a
   * caller that is asked for text throws `missingTokenizerError`
   * @throws NdsError ERR_TOKENIZER for a file that is broken or unsupported, as far as that is known before `prepare`
   */
  static async load(folder: string): Promise<Tokenizer | undefined> {
    const file = join(folder, 'tokenizer.json');
    const configFile = join(folder, 'tokenizer_config.json');
    const [json, config = {}] = await Promise.all([readJson(file), readJson(configFile)]);
    if (json === undefined) return undefined;
    if (!isObject(config)) {
      throw new NdsError('ERR_TOKENIZER', `Expected an object for ${configFile} but received ${JSON.stringify(config)}`);
    }
    return new Tokenizer(json, config as Record<string, unknown>, file);
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
  encode(text: string, options: { addSpecialTokens?: boolean } = {}): number[] {
    const at = text.search(/\p{Surrogate}/u);
    if (at >= 0) {
      const unit = text.charCodeAt(at).toString(16).toUpperCase();
      throw new NdsError(
        'ERR_REQUEST',
        `Expected well-formed Unicode for the prompt but received a lone surrogate U+${unit} at index ${at}`,
      );
    }
    this.#encoder ??= this.#createEncoder();
    return this.#encoder.encode(text, options.addSpecialTokens ?? true);
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
}
