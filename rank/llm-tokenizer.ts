/** The tokenizer and chat template of an open `LLM`, as its own calls use them. */
import { boolean, checked, checkFields } from '../protocol/checks.ts';
import { unexpected } from '../protocol/errors.ts';
import type { ChatOptions, ChatTemplate } from './chat/chat-template.ts';
import type { ChatMessage } from './chat/messages.ts';
import { copyTokenIds, type TokenIds } from './request/prompt.ts';
import type { DecodeOptions, EncodeOptions, Tokenizer } from './text/tokenizer.ts';
import { missingTokenizerError } from './text/tokenizer.ts';

/** Options of `applyChatTemplate`: those of `chat`, and the form of the result. */
export interface ApplyChatTemplateOptions extends ChatOptions {
  /** Whether the result is the token ids and not the text. Default false. */
  readonly tokenize?: boolean | undefined;
}

/** What the tokenizer needs of its `LLM`. */
export interface TokenizerModel {
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: ChatTemplate;
  readonly limits: { readonly modelPath: string; readonly vocabSize: number };
}

/**
 * Text to token ids and back, exactly as `generate` and `chat` do it.
 *
 * Every member throws NdsError `ERR_CLOSED` once its `LLM` is closed, else the failure that closed it; `ERR_TOKENIZER`
 * for a model without tokenizer.json; `ERR_REQUEST` for a wrong argument.
 */
export class LLMTokenizer {
  readonly #model: TokenizerModel;
  readonly #checkOpen: () => void;

  /** @param checkOpen - throws once the model is closed */
  constructor(model: TokenizerModel, checkOpen: () => void) {
    this.#model = model;
    this.#checkOpen = checkOpen;
  }

  /** Highest token id + 1; the model's vocabulary may be padded beyond it. */
  get vocabSize(): number {
    return this.#open().vocabSize;
  }

  /** Id of the token at the beginning of a text; undefined for a tokenizer without one. */
  get bosTokenId(): number | undefined {
    return this.#open().bosTokenId;
  }

  /** Id of the tokenizer's end-of-sequence token; the model may end its texts at others too. */
  get eosTokenId(): number | undefined {
    return this.#open().eosTokenId;
  }

  /** `bos_token` and the like by name, as chat templates get them. */
  get specialTokens(): Readonly<Record<string, string>> {
    return this.#open().specialTokens;
  }

  /**
   * Token ids of a text, as of a prompt. Special tokens spelled out in the text are encoded as themselves. A text from
   * 4096 characters on is encoded in a thread, which no stream waits for.
   *
   * @throws NdsError `ERR_REQUEST` for what is no string, or has a lone surrogate, which has no UTF-8 form
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    const tokenizer = this.#open();
    if (typeof text !== 'string') throw unexpected('ERR_REQUEST', 'a string', 'the text', text);
    return tokenizer.encodeAsync(text, checkBooleans(options, 'addSpecialTokens'));
  }

  /** Number of token ids that `encode` gives. @throws NdsError as `encode`. */
  async count(text: string, options: EncodeOptions = {}): Promise<number> {
    return (await this.encode(text, options)).length;
  }

  /**
   * The text of token ids. Bytes of an incomplete character become U+FFFD; ids of vocabulary padding have no text.
   *
   * @throws NdsError `ERR_REQUEST` for an id outside the model's vocabulary
   */
  decode(tokenIds: TokenIds, options: DecodeOptions = {}): string {
    const tokenizer = this.#open();
    const ids = copyTokenIds(tokenIds, this.#model.limits.vocabSize, 'tokenIds');
    return tokenizer.decode(ids, checkBooleans(options, 'skipSpecialTokens'));
  }

  /**
   * A conversation as the model's chat template writes it: the prompt that `chat` gives the model, as text or, with
   * `tokenize`, as token ids.
   *
   * @throws NdsError `ERR_REQUEST` for bad messages or options, and for a model without a template; `ERR_TOKENIZER` for
   * a broken template
   */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: ApplyChatTemplateOptions & { readonly tokenize?: false | undefined },
  ): Promise<string>;
  applyChatTemplate(messages: readonly ChatMessage[], options: ApplyChatTemplateOptions & { readonly tokenize: true }): Promise<number[]>;
  applyChatTemplate(messages: readonly ChatMessage[], options?: ApplyChatTemplateOptions): Promise<string | number[]>;
  async applyChatTemplate(messages: readonly ChatMessage[], options: ApplyChatTemplateOptions = {}): Promise<string | number[]> {
    this.#checkOpen();
    if (typeof options !== 'object' || options === null) return this.#model.chatTemplate.render(messages, options);
    const { tokenize = false, ...chat } = options;
    checked(tokenize, boolean, 'tokenize', 'ERR_REQUEST');
    // Refused before the template runs.
    const tokenizer = tokenize ? this.#open() : null;
    const text = await this.#model.chatTemplate.render(messages, chat);
    return tokenizer === null ? text : tokenizer.encodeAsync(text, { addSpecialTokens: false });
  }

  #open(): Tokenizer {
    this.#checkOpen();
    const { tokenizer, limits } = this.#model;
    if (tokenizer === undefined) throw missingTokenizerError(limits.modelPath);
    return tokenizer;
  }
}

function checkBooleans<T extends object>(options: T, name: string): T {
  if (typeof options !== 'object' || options === null) throw unexpected('ERR_REQUEST', 'an object of options', null, options);
  checkFields(options, { [name]: boolean }, { plural: 'options' }, 'ERR_REQUEST');
  return options;
}
