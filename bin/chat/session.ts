/** A chat with a loaded model: runs the actions that its lines ask for. */
import { readFileSync, writeFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import type { LLM, SamplingParams } from '../../rank/index.ts';
import { describeSpeculation } from '../commands/generate-output.ts';
import { parseMessages } from '../commands/messages-option.ts';
import { AnswerMeter } from './answer-meter.ts';
import { Conversation } from './conversation.ts';
import { type ChatAction, commandHelp } from './lines.ts';
import { ChatParameters } from './parameters.ts';
import { tinted } from './tint.ts';

export interface ChatSettings {
  readonly system: string | null;
  readonly sampling: SamplingParams;
  readonly tintDrafts: boolean;
  /** Whether nothing but errors is said about an answer. */
  readonly quiet: boolean;
}

/** Where a chat writes. */
export interface ChatScreen {
  /** Answers, and what commands show. */
  write(text: string): unknown;
  /** A line about an answer, without its newline. */
  note(line: string): unknown;
}

export class ChatSession {
  readonly #llm: LLM;
  readonly #settings: ChatSettings;
  readonly #screen: ChatScreen;
  readonly #conversation: Conversation;
  readonly #parameters: ChatParameters;
  /** Of the answer in flight. */
  #abort: AbortController | null = null;
  /** Tokens of the conversation as the last answer left it. */
  #numContextTokens = 0;
  #numDecoded = 0;
  #decodeMs = 0;

  constructor(llm: LLM, settings: ChatSettings, screen: ChatScreen) {
    this.#llm = llm;
    this.#settings = settings;
    this.#screen = screen;
    this.#conversation = new Conversation(settings.system);
    this.#parameters = new ChatParameters(settings.sampling);
  }

  /** Stops the answer in flight. @returns whether there was one. */
  interrupt(): boolean {
    this.#abort?.abort();
    return this.#abort !== null;
  }

  /**
   * Runs an action to its end.
   * @throws NdsError `ERR_USAGE` or `ERR_REQUEST` for one that cannot be; nothing has changed then. Other codes are
   * failures of the model.
   */
  async run(action: ChatAction): Promise<void> {
    switch (action.type) {
      case 'say':
        return await this.#answer(action.text);
      case 'refuse':
        throw new NdsError('ERR_USAGE', action.message);
      case 'help':
        this.#screen.write(commandHelp);
        return;
      case 'reset':
        this.#numContextTokens = 0;
        return this.#conversation.reset();
      case 'system':
        return this.#conversation.setSystem(action.text);
      case 'set':
        this.#screen.write(this.#set(action.parameter));
        return;
      case 'stats':
        this.#screen.write(this.#describe());
        return;
      case 'save':
        return this.#save(action.file);
      case 'load':
        return this.#load(action.file);
      case 'exit':
      case 'more':
      case 'nothing':
        return;
    }
  }

  async #answer(text: string): Promise<void> {
    const message = { role: 'user', content: text };
    const meter = new AnswerMeter();
    const numPromptBefore = this.#llm.stats().numPromptTokens;
    let answer = '';
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const { tintDrafts } = this.#settings;
    const params = { ...this.#parameters.current, maxTokens: this.#maxTokens, ...(tintDrafts && { logprobs: 0 }) };
    try {
      for await (const chunk of this.#llm.streamChat([...this.#conversation.messages, message], params, { signal })) {
        meter.push(chunk);
        answer += chunk.text;
        this.#screen.write(tintDrafts ? tinted(chunk) : chunk.text);
      }
    } catch (error) {
      if (error instanceof NdsError && error.code === 'ERR_REQUEST') throw refusedMessage(error);
      if (!signal.aborted) throw error;
    } finally {
      this.#abort = null;
    }
    this.#screen.write('\n');
    // An answer that was stopped before its first text leaves no turn.
    if (answer !== '' || !signal.aborted) this.#conversation.add(message, { role: 'assistant', content: answer });
    this.#count(meter, this.#llm.stats().numPromptTokens - numPromptBefore);
    if (!this.#settings.quiet) this.#noteAnswer(meter, signal.aborted);
  }

  /** Up to the context, unless the user or the model says less. */
  get #maxTokens(): number {
    return this.#parameters.current.maxTokens ?? this.#llm.defaultSamplingParams.maxTokens ?? this.#llm.options.maxModelLen;
  }

  #count(meter: AnswerMeter, numPromptComputed: number): void {
    if (meter.numTokens > 0) this.#numContextTokens = numPromptComputed + meter.numCachedTokens + meter.numTokens;
    this.#numDecoded += meter.numDecoded;
    this.#decodeMs += meter.decodeMs;
  }

  #noteAnswer(meter: AnswerMeter, isStopped: boolean): void {
    const { numTokens, numDecoded, decodeMs, firstTokenMs, speculation, finishReason } = meter;
    const first = numTokens === 0 ? '' : `, first after ${(firstTokenMs / 1000).toFixed(2)} s`;
    const rate = numDecoded === 0 ? '' : `, then ${rateText(numDecoded, decodeMs)}`;
    const drafts = speculation === null ? '' : `; ${describeSpeculation(speculation)}`;
    this.#screen.note(`${numTokens} tokens${isStopped ? ', stopped' : ''}${first}${rate}${drafts}`);
    if (finishReason !== 'length') return;
    const isByLimit = numTokens >= this.#maxTokens;
    const reason = isByLimit
      ? `max-tokens is ${this.#maxTokens} (/set max-tokens N)`
      : 'the context is full (/reset begins a new conversation)';
    this.#screen.note(`the answer was cut: ${reason}`);
  }

  #set(parameter: { readonly name: string; readonly value: string } | null): string {
    return parameter === null ? this.#parameters.describe() : `${this.#parameters.set(parameter.name, parameter.value)}\n`;
  }

  #describe(): string {
    const { numTokens, speculation } = this.#llm.stats();
    const rate = this.#numDecoded === 0 ? '' : `, ${rateText(this.#numDecoded, this.#decodeMs)}`;
    const lines = [
      `messages answered: ${this.#conversation.numTurns}`,
      `context: ${this.#numContextTokens} of ${this.#llm.options.maxModelLen} tokens`,
      `generated: ${numTokens} tokens${rate}`,
      ...(speculation === null ? [] : [`drafts: ${describeSpeculation(speculation)}`]),
    ];
    return `${lines.join('\n')}\n`;
  }

  #save(file: string): void {
    try {
      writeFileSync(file, `${JSON.stringify(this.#conversation.messages, null, 2)}\n`);
    } catch (error) {
      throw new NdsError('ERR_USAGE', `Expected a file to write for /save but received ${file}: ${(error as Error).message}`);
    }
  }

  #load(file: string): void {
    let json: string;
    try {
      json = readFileSync(file, 'utf8');
    } catch (error) {
      throw new NdsError('ERR_USAGE', `Expected a file to read for /load but received ${file}: ${(error as Error).message}`);
    }
    this.#conversation.replace(parseMessages(json, file));
    this.#numContextTokens = 0;
  }
}

/** Says what to do about a message that the conversation cannot take, as it is too long or the template refuses it. */
function refusedMessage(error: NdsError): NdsError {
  return new NdsError(error.code, `${error.message}; the conversation is without this message (/reset begins a new one)`, { cause: error });
}

function rateText(numTokens: number, ms: number): string {
  return `${((numTokens * 1000) / ms).toFixed(1)} tokens/s`;
}
