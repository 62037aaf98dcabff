/** A rank of `ndsrun chat`: `chat-rank REQUEST`. */
import { NdsError } from '../../protocol/errors.ts';
import { claimInterrupts } from '../../protocol/interrupts.ts';
import { readRankEnv } from '../../protocol/rank-env.ts';
import type { LLM, SamplingParams } from '../../rank/index.ts';
import { ChatHistory, historyFile } from '../chat/history.ts';
import { type ChatInput, StreamInput } from '../chat/input.ts';
import { ChatLines } from '../chat/lines.ts';
import { type ChatScreen, ChatSession } from '../chat/session.ts';
import { TerminalInput } from '../chat/terminal-input.ts';
import type { ChatRequest } from './chat.ts';
import { rankMain } from './rank-main.ts';
import { loadWithBar } from './rank-progress.ts';

await rankMain(() => chat(JSON.parse(process.argv[2] ?? '') as ChatRequest));

/** On a terminal an error is shown and the chat goes on; else it ends the chat, so that a script notices. */
async function chat(request: ChatRequest): Promise<void> {
  const { model, load, seed, isTerminal } = request;
  await using llm = await loadWithBar(model, load, request.quiet);
  const sampling: SamplingParams = { ...request.sampling, ...(seed === null ? {} : { seed: BigInt(seed) }) };
  const screen = screenOf(request);
  const session = new ChatSession(llm, { ...request, sampling }, screen);
  const lines = new ChatLines();
  const input = openInput(request, session, lines, screen);
  const env = readRankEnv();
  if (env !== null) claimInterrupts(env.runDir);
  try {
    if (isTerminal && !request.quiet) screen.note(greeting(llm, model));
    for (;;) {
      const line = await input.next(lines.isOpen);
      const action = line === null ? (isTerminal ? ({ type: 'exit' } as const) : lines.end()) : lines.push(line);
      if (action.type === 'exit') return;
      await session.run(action).catch((error: unknown) => {
        const isUsersMistake = error instanceof NdsError && (error.code === 'ERR_USAGE' || error.code === 'ERR_REQUEST');
        if (!isTerminal || !isUsersMistake) throw error;
        screen.write(`${error.message}\n`);
      });
    }
  } finally {
    input.close();
  }
}

/** SIGINT comes from the launcher where it is no key: from a pipe's terminal, or by `kill`. */
function openInput({ isTerminal, keepsHistory }: ChatRequest, session: ChatSession, lines: ChatLines, screen: ChatScreen): ChatInput {
  if (!isTerminal) {
    const input = new StreamInput(process.stdin);
    process.on('SIGINT', () => {
      if (!session.interrupt()) input.close();
    });
    return input;
  }
  const onError = (error: Error) => screen.note(`the history is not kept: ${error.message}`);
  const discard = () => {
    const wasOpen = lines.isOpen;
    lines.discard();
    return wasOpen;
  };
  const target = { interrupt: () => session.interrupt(), discard };
  const input = new TerminalInput(process.stdin, target, keepsHistory ? new ChatHistory(historyFile(), onError) : null);
  process.on('SIGINT', () => input.interrupt());
  return input;
}

/** Notes go where answers do if that is one terminal: two pipes to the launcher have no common order. */
function screenOf({ hasColor, isOneScreen }: ChatRequest): ChatScreen {
  const [dim, plain] = hasColor ? ['\u001b[2m', '\u001b[22m'] : ['', ''];
  const notes = isOneScreen ? process.stdout : process.stderr;
  return {
    write: (text) => process.stdout.write(text),
    note: (line) => notes.write(`${dim}${line}${plain}\n`),
  };
}

function greeting(llm: LLM, model: string): string {
  const { maxModelLen, dtype } = llm.options;
  const ranks = `${llm.shards.length} rank${llm.shards.length === 1 ? '' : 's'}`;
  return `${model} on ${ranks}, ${dtype}, a context of ${maxModelLen} tokens; /help lists the commands, Ctrl-D ends`;
}
