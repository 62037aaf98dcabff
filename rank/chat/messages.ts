/** Conversations, checked before they are rendered. */
import { isObject } from '../../protocol/checks.ts';
import { NdsError, unexpected } from '../../protocol/errors.ts';
import { strip } from './jinja/white-space.ts';

/** A part of a message's content. */
export interface TextPart {
  readonly type: 'text';
  readonly text: string;
}

/**
 * One message of a conversation. Other fields, such as `tool_calls` or `name`, are passed to the template unchanged.
 */
export interface ChatMessage {
  readonly role: string;
  /** May be absent or null for a message of the assistant, e.g. beside `tool_calls`. */
  readonly content?: string | readonly TextPart[] | null | undefined;
  readonly [field: string]: unknown;
}

/** Max nesting; a deeper value would exhaust the stack of its reader. */
const maxDepth = 64;

/**
 * Marks the end of the final message in a rendering. Transformers' own mark, with its trailing space: a mark without it
 * means trimmed text.
 */
const mark = 'CONTINUE_FINAL_MESSAGE_TAG ';

/** Error for an invalid message or chat option. */
export function refuse(expected: string, what: string, value: unknown): NdsError {
  return unexpected('ERR_REQUEST', expected, what, value);
}

/**
 * Copies a conversation.
 * @throws NdsError `ERR_REQUEST` naming the message and field that is wrong.
 */
export function checkMessages(messages: unknown): ChatMessage[] {
  if (!Array.isArray(messages)) throw refuse('an array of messages', 'messages', messages);
  if (messages.length === 0) throw refuse('at least one message', 'messages', messages);
  return Array.from(messages as unknown[], (message, i) => checkMessage(message, `messages[${i}]`));
}

function checkMessage(message: unknown, what: string): ChatMessage {
  if (!isPlainObject(message)) throw refuse('an object { role, content }', what, message);
  const { role, content } = message;
  if (typeof role !== 'string' || role === '') throw refuse('a non-empty string', `${what}.role`, role);
  if (Array.isArray(content)) {
    for (const [i, part] of content.entries()) checkPart(part, `${what}.content[${i}]`);
  } else if (typeof content !== 'string' && !(role === 'assistant' && (content ?? null) === null)) {
    throw refuse("a string or an array of { type: 'text', text }", `${what}.content`, content);
  }
  return checkJson(message, what) as ChatMessage;
}

function checkPart(part: unknown, what: string): void {
  if (!isPlainObject(part) || part['type'] !== 'text' || typeof part['text'] !== 'string') {
    throw refuse("{ type: 'text', text }, the only kind of part that a text model takes,", what, part);
  }
}

/**
 * Copies a JSON value, without fields that are `undefined`.
 * @throws NdsError `ERR_REQUEST` naming the place of a value that JSON cannot represent.
 */
export function checkJson(value: unknown, what: string, depth = 0): unknown {
  if (depth > maxDepth) throw new NdsError('ERR_REQUEST', `Expected at most ${maxDepth} levels of nesting for ${what} but received more`);
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (Array.isArray(value)) return Array.from(value as unknown[], (item, i) => checkJson(item, `${what}[${i}]`, depth + 1));
  if (!isPlainObject(value)) throw refuse('a JSON value', what, value);
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, checkJson(item, `${what}.${key}`, depth + 1)]));
}

/** Whether a value is an object without a class of its own, as JSON has them. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (!isObject(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** A conversation whose final text ends with the mark, and that text without it. */
export interface MarkedMessages {
  readonly messages: readonly ChatMessage[];
  readonly finalText: string;
}

/** Appends the mark to the final message. @throws NdsError `ERR_REQUEST` when that has no text. */
export function markFinalMessage(messages: readonly ChatMessage[]): MarkedMessages {
  const last = messages[messages.length - 1] as ChatMessage;
  const others = messages.slice(0, -1);
  const { content } = last;
  if (typeof content === 'string') return { messages: [...others, { ...last, content: content + mark }], finalText: content };
  const final = content?.at(-1);
  if (!content || final === undefined) throw refuse('text to continue', 'the content of the last message', content);
  const parts = [...content.slice(0, -1), { ...final, text: final.text + mark }];
  return { messages: [...others, { ...last, content: parts }], finalText: final.text };
}

/**
 * The rendering of a marked conversation up to the mark, trimmed where the template trims the message.
 * @throws NdsError `ERR_REQUEST` when it does not contain the final message.
 */
export function cutAtMark(rendered: string, finalText: string): string {
  const at = rendered.lastIndexOf(mark.trimEnd());
  if (at < 0 || !rendered.includes(strip(finalText, null))) {
    throw new NdsError(
      'ERR_REQUEST',
      'Expected a chat template that keeps the final message, to continue it, but received one that changes it',
    );
  }
  const text = rendered.slice(0, at);
  return rendered.startsWith(mark, at) ? text : strip(text, null, 'right');
}
