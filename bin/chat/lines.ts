/** Lines of a chat as actions: a message, a command, or the wish for another line. Pure. */
import { near } from './near.ts';

/** What a line asks for. */
export type ChatAction =
  | { readonly type: 'say'; readonly text: string }
  /** Null removes the system message. */
  | { readonly type: 'system'; readonly text: string | null }
  /** Null shows what is set. */
  | { readonly type: 'set'; readonly parameter: { readonly name: string; readonly value: string } | null }
  | { readonly type: 'save' | 'load'; readonly file: string }
  | { readonly type: 'help' | 'reset' | 'stats' | 'exit' }
  /** The message goes on in the next line. */
  | { readonly type: 'more' }
  | { readonly type: 'nothing' }
  | { readonly type: 'refuse'; readonly message: string };

const quote = '"""';

export const commandHelp = `/help               this list
/reset              begin a new conversation; the system message stays
/system TEXT        set the system message; without TEXT: remove it
/set NAME VALUE     set a sampling parameter, e.g. /set temperature 0.2; VALUE "default": as at first; without both: show
/stats              tokens, speed and drafts so far
/save FILE          write the conversation as JSON messages
/load FILE          go on from such a file
/exit               end the chat, as Ctrl-D does
"""                 begin and end a message of several lines; a backslash at the end of a line continues it too
Ctrl-C              stop the answer
`;

const commands = ['help', 'reset', 'system', 'set', 'stats', 'save', 'load', 'exit'] as const;
type CommandName = (typeof commands)[number];
/** Other tools' names. */
const aliases: Readonly<Record<string, CommandName>> = { '?': 'help', bye: 'exit', quit: 'exit', clear: 'reset', new: 'reset' };

export class ChatLines {
  /** Lines of a message so far; null between messages. */
  #open: { readonly lines: readonly string[]; readonly isQuoted: boolean } | null = null;

  /** Whether a message waits for its next line. */
  get isOpen(): boolean {
    return this.#open !== null;
  }

  /** Drops a message that is not complete. */
  discard(): void {
    this.#open = null;
  }

  /** @param line - without its newline */
  push(line: string): ChatAction {
    const lines = [...(this.#open?.lines ?? []), line];
    const isQuoted = this.#open === null ? opensQuote(line) : this.#open.isQuoted;
    if (isQuoted ? !closesQuote(lines) : line.endsWith('\\')) {
      this.#open = { lines: isQuoted ? lines : [...lines.slice(0, -1), line.slice(0, -1)], isQuoted };
      return { type: 'more' };
    }
    this.#open = null;
    return parse(lines.join('\n'));
  }

  /** At the end of the input. */
  end(): ChatAction {
    const open = this.#open;
    this.#open = null;
    if (open === null) return { type: 'exit' };
    return refuse(`Expected ${open.isQuoted ? quote : 'the line after a backslash'} before the end of the input but received none`);
  }
}

/** A message may be quoted, and the text of /system. */
function opensQuote(line: string): boolean {
  return line.replace(/^\/system\s+/, '').startsWith(quote);
}

function closesQuote(lines: readonly string[]): boolean {
  const text = lines.join('\n').trimEnd();
  return text.endsWith(quote) && text.indexOf(quote) <= text.length - 2 * quote.length;
}

function unquoted(text: string): string {
  const trimmed = text.trim();
  if (!trimmed.startsWith(quote)) return text;
  return trimmed
    .slice(quote.length, -quote.length)
    .replace(/^\r?\n/, '')
    .replace(/\r?\n$/, '');
}

function parse(text: string): ChatAction {
  if (text.trim() === '') return { type: 'nothing' };
  const [, word, rest = ''] = /^\/(\S*)\s*([\s\S]*)$/.exec(text) ?? [];
  if (word !== undefined) return parseCommand(word, rest.trimEnd());
  const message = unquoted(text);
  return message.trim() === '' ? { type: 'nothing' } : { type: 'say', text: message };
}

function parseCommand(word: string, rest: string): ChatAction {
  const name = commands.find((command) => command === word) ?? aliases[word];
  switch (name) {
    case 'system':
      return { type: name, text: unquoted(rest) === '' ? null : unquoted(rest) };
    case 'set':
      return parseSet(rest);
    case 'save':
    case 'load':
      return rest === '' ? refuse(`Expected a file for /${name} but received none`) : { type: name, file: rest };
    case undefined:
      return refuse(
        `Expected a command, one of /${commands.join(' /')}, but received /${word}${near(word, commands, '/')}: a message that begins with / stands between ${quote}`,
      );
    default:
      return rest === '' ? { type: name } : refuse(`Expected nothing after /${name} but received "${rest}"`);
  }
}

/** `NAME VALUE` or `NAME=VALUE`. */
function parseSet(rest: string): ChatAction {
  if (rest === '') return { type: 'set', parameter: null };
  const [, name = '', value = ''] = /^([^\s=]+)(?:\s*=\s*|\s+|$)([\s\S]*)$/.exec(rest) ?? [];
  if (name === '' || value === '') return refuse(`Expected a value for /set ${rest} but received none`);
  return { type: 'set', parameter: { name, value } };
}

function refuse(message: string): ChatAction {
  return { type: 'refuse', message };
}
