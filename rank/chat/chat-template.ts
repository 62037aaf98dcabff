/** Renders conversations with the model's chat template. */
import { boolean, type Check, checkFields, listOf, where } from '../../protocol/checks.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { TemplateLimits } from './jinja/budget.ts';
import { TemplateError } from './jinja/errors.ts';
import { type ChatMessage, checkJson, checkMessages, cutAtMark, isPlainObject, markFinalMessage, refuse } from './messages.ts';
import { ChatRenderer } from './renderer.ts';
import { type ChatTemplateFiles, readChatTemplateFiles } from './template-files.ts';

/** How to render a conversation. Every option is optional; an unknown one is refused. */
export interface ChatOptions {
  /** Template, or the name of one of the model's. Default: the model's; with `tools`, its `tool_use` if it has one. */
  readonly chatTemplate?: string | undefined;
  /** Whether to append the prefix of the assistant's answer. Default true, or false with `continueFinalMessage`. */
  readonly addGenerationPrompt?: boolean | undefined;
  /** Whether to leave the last message open, so that it is continued. Default false. */
  readonly continueFinalMessage?: boolean | undefined;
  /** Tools that the model may call, as JSON schemas. */
  readonly tools?: readonly object[] | undefined;
  /** Further variables of the template, e.g. `{ enable_thinking: false }`. */
  readonly chatTemplateKwargs?: Readonly<Record<string, unknown>> | undefined;
}

/** Bounds of one rendering. */
export interface ChatLimits extends TemplateLimits {
  readonly timeoutMs: number;
}

const defaultLimits: ChatLimits = { maxSteps: 2e7, maxWorkChars: 2 ** 26, maxOutputChars: 2 ** 22, timeoutMs: 10_000 };

/** The check of each option. */
const checks: Readonly<Record<keyof Required<ChatOptions>, Check<unknown>>> = {
  chatTemplate: where('a template or the name of one', (value: unknown) => typeof value === 'string'),
  addGenerationPrompt: boolean,
  continueFinalMessage: boolean,
  tools: listOf('an array of JSON schemas', where('a JSON schema', isPlainObject)),
  chatTemplateKwargs: where('an object', isPlainObject),
};
const ownVariables = ['messages', 'tools', 'add_generation_prompt', 'continue_final_message'];

/** Tokens by name. */
type SpecialTokens = Readonly<Record<string, string>>;

/** The chat templates of one model. */
export class ChatTemplate {
  readonly #files: ChatTemplateFiles;
  readonly #specialTokens: SpecialTokens;
  readonly #limits: ChatLimits;
  readonly #renderer: ChatRenderer;

  /** @param specialTokens - `bos_token` and the like, as variables of templates */
  constructor(files: ChatTemplateFiles, specialTokens: SpecialTokens = {}, limits: ChatLimits = defaultLimits) {
    this.#files = files;
    this.#specialTokens = specialTokens;
    this.#limits = limits;
    this.#renderer = new ChatRenderer(limits.timeoutMs);
  }

  /**
   * Reads the templates of a model folder, which may have none.
   * @param specialTokens - the tokenizer's, for the templates
   * @throws NdsError `ERR_TOKENIZER` for an unreadable file.
   */
  static async load(folder: string, specialTokens: SpecialTokens = {}): Promise<ChatTemplate> {
    return new ChatTemplate(await readChatTemplateFiles(folder), specialTokens);
  }

  /**
   * Renders a conversation.
   * @throws NdsError `ERR_REQUEST` for wrong messages or options, messages that the template refuses, and a model
   * without a template; `ERR_TOKENIZER` for a template of the model that is broken or exceeds its limits; `ERR_CLOSED`
   * after `close()`.
   */
  async render(messages: readonly ChatMessage[], options: ChatOptions = {}): Promise<string> {
    const checked = checkMessages(messages);
    const { addGenerationPrompt, continueFinalMessage, tools, chatTemplateKwargs } = checkChatOptions(options);
    const template = this.#choose(options);
    const marked = continueFinalMessage ? markFinalMessage(checked) : null;
    const variables = {
      documents: null,
      ...this.#specialTokens,
      ...(checkJson(chatTemplateKwargs, 'chatTemplateKwargs') as object),
      messages: marked?.messages ?? checked,
      tools: checkJson(tools, 'tools'),
      add_generation_prompt: addGenerationPrompt,
    };
    const job = { template, variables: JSON.stringify(variables), limits: this.#limits };
    const text = await this.#renderer.render(job).catch((error: unknown) => {
      throw this.#explain(error, template === options.chatTemplate);
    });
    return marked === null ? text : cutAtMark(text, marked.finalText);
  }

  /** Ends the rendering thread; may be called more than once. */
  close(): Promise<void> {
    return this.#renderer.close();
  }

  #choose({ chatTemplate, tools }: ChatOptions): string {
    const { templates, source } = this.#files;
    if (chatTemplate !== undefined) {
      const named = templates.get(chatTemplate);
      if (named !== undefined || /\{[{%]/.test(chatTemplate)) return named ?? chatTemplate;
      throw refuse(
        `a template or one of the names ${[...templates.keys()].join(', ') || '(there are none)'}`,
        'chatTemplate',
        chatTemplate,
      );
    }
    const template = (tools === undefined ? undefined : templates.get('tool_use')) ?? templates.get('default');
    if (template !== undefined) return template;
    const found = templates.size === 0 ? 'a model without one' : `only those named ${[...templates.keys()].join(', ')} in ${source}`;
    throw new NdsError('ERR_REQUEST', `Expected a chat template, the model's or one given as chatTemplate, but received ${found}`);
  }

  #explain(error: unknown, isGiven: boolean): unknown {
    if (!(error instanceof TemplateError)) return error;
    const { fault, message } = error;
    const source = isGiven ? 'chatTemplate' : this.#files.source;
    if (fault === 'messages') {
      return new NdsError('ERR_REQUEST', `Expected messages that the chat template of ${source} takes but received from it: ${message}`);
    }
    return new NdsError(
      isGiven ? 'ERR_REQUEST' : 'ERR_TOKENIZER',
      `Expected a working chat template for ${source} but received: ${message}`,
    );
  }
}

function checkChatOptions(options: ChatOptions) {
  if (!isPlainObject(options)) throw refuse('an object of chat options', 'options', options);
  checkFields(options, checks, { plural: 'chat options' }, 'ERR_REQUEST');
  const { continueFinalMessage = false, addGenerationPrompt = !continueFinalMessage, tools, chatTemplateKwargs = {} } = options;
  if (continueFinalMessage && addGenerationPrompt) {
    throw refuse('false beside continueFinalMessage', 'addGenerationPrompt', addGenerationPrompt);
  }
  const own = Object.keys(chatTemplateKwargs as object).find((name) => ownVariables.includes(name));
  if (own !== undefined)
    throw new NdsError(
      'ERR_REQUEST',
      `Expected variables other than ${ownVariables.join(', ')} for chatTemplateKwargs but received '${own}'`,
    );
  return { addGenerationPrompt, continueFinalMessage, tools: tools ?? null, chatTemplateKwargs };
}
