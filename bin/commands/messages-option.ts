/** Conversations on the command line: `--messages FILE`, and whether a model has a chat template. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { checkMessages } from '../../rank/chat/messages.ts';
import { readChatTemplateFiles } from '../../rank/chat/template-files.ts';
import type { ChatMessage } from '../../rank/index.ts';
import { systemFirst } from '../chat/conversation.ts';

/** Linux takes at most 128 KiB in one argument. */
const maxArgumentBytes = 100_000;
/** And by default 2 MiB in all of them, the environment included. */
const maxMessagesBytes = 1_500_000;

/**
 * A conversation from a JSON file; `-` = standard input. It is read before ranks start, which inherit no pipe but
 * standard input.
 *
 * @throws NdsError `ERR_NOT_FOUND` for a file that cannot be read, `ERR_REQUEST` for one that holds no conversation,
 * `ERR_USAGE` for a second system message.
 */
export function readMessages(file: string, system: string | null): readonly ChatMessage[] {
  const messages = parseMessages(readUtf8(file), file);
  if (system === null) return messages;
  if (messages[0]?.role === 'system')
    throw new NdsError('ERR_USAGE', `Expected no system message in ${file} beside --system but received one`);
  return systemFirst(system, messages);
}

/** The messages that a JSON text holds. @throws NdsError `ERR_REQUEST` naming `source` and what is wrong. */
export function parseMessages(json: string, source: string): ChatMessage[] {
  try {
    return checkMessages(JSON.parse(json));
  } catch (error) {
    throw new NdsError('ERR_REQUEST', `Expected messages, a JSON array of { role, content }, in ${source}: ${(error as Error).message}`);
  }
}

/** A text as arguments of a process, none too long; `join('')` gives it back. @throws NdsError `ERR_REQUEST` */
export function argumentChunks(text: string): readonly string[] {
  const numBytes = Buffer.byteLength(text);
  if (numBytes > maxMessagesBytes) {
    throw new NdsError('ERR_REQUEST', `Expected at most ${maxMessagesBytes} bytes of messages but received ${numBytes}`);
  }
  // A UTF-16 unit is at most three bytes.
  const size = Math.floor(maxArgumentBytes / 3);
  const chunks: string[] = [];
  for (let begin = 0; begin < text.length; ) {
    // Not between the halves of a pair.
    const end = begin + size < text.length && /[\ud800-\udbff]/.test(text[begin + size - 1] as string) ? begin + size - 1 : begin + size;
    chunks.push(text.slice(begin, end));
    begin = end;
  }
  return chunks;
}

/** Whether a model folder has a chat template. */
async function hasChatTemplate(folder: string): Promise<boolean> {
  return (await readChatTemplateFiles(folder)).templates.has('default');
}

/** False for a name that the ranks of several nodes will look for. */
function isModelFolder(folder: string): boolean {
  return existsSync(join(folder, 'config.json'));
}

/** @throws NdsError `ERR_REQUEST` for a model folder without a chat template; whether it is one, the ranks say. */
export async function refuseWithoutTemplate(folder: string): Promise<void> {
  if (!isModelFolder(folder) || (await hasChatTemplate(folder))) return;
  throw new NdsError(
    'ERR_REQUEST',
    `Expected a model with a chat template but received ${folder}, which has none (ndsrun generate continues a text)`,
  );
}

/** Says on standard error that a chat template was not applied, where a folder has one. */
export async function noteChatTemplate(folder: string): Promise<void> {
  if (!isModelFolder(folder) || !(await hasChatTemplate(folder))) return;
  process.stderr.write('ndsrun: the model has a chat template: --chat, --system TEXT or --messages FILE apply it\n');
}

/** A text file, or standard input. */
function readUtf8(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    throw new NdsError('ERR_NOT_FOUND', `Expected a file of messages but received ${file}: ${(error as Error).message}`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new NdsError('ERR_REQUEST', `Expected messages in UTF-8 in ${file} but received ${(error as Error).message}`);
  }
}
