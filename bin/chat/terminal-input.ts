/** Lines from a terminal: edited, with a history, and with Ctrl-C as a key. */
import { createInterface, type Interface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { WriteStream } from 'node:tty';
import { type ChatHistory, historySize } from './history.ts';
import type { ChatInput } from './input.ts';
import { disablePasteMarks, enablePasteMarks, PasteFilter, withNewlines } from './paste.ts';

const [prompt, continuedPrompt] = ['>>> ', '... '];
const interruptKey = '\u0003';
const exitHint = '(Ctrl-C again, Ctrl-D or /exit ends the chat)\n';

type Terminal = NodeJS.ReadStream & { readonly fd: 0 };

/** What Ctrl-C does. */
export interface InterruptTarget {
  /** Stops the answer in flight. @returns whether there was one. */
  interrupt(): boolean;
  /** Drops a message of several lines. @returns whether there was one. */
  discard(): boolean;
}

export class TerminalInput implements ChatInput {
  readonly #stdin: Terminal;
  readonly #target: InterruptTarget;
  readonly #history: ChatHistory | null;
  /** Keys for the line editor: all but those that come during an answer. */
  readonly #keys = new PassThrough();
  readonly #decoder = new StringDecoder('utf8');
  readonly #pastes = new PasteFilter();
  readonly #editor: Interface;
  readonly #lines: string[] = [];
  #waiting: ((line: string | null) => void) | null = null;
  /** Keys that were typed during an answer. */
  #held = '';
  #isClosed = false;
  #numInterrupts = 0;

  constructor(stdin: Terminal, target: InterruptTarget, history: ChatHistory | null) {
    [this.#stdin, this.#target, this.#history] = [stdin, target, history];
    // The line editor turns raw mode on and off by its input.
    Object.assign(this.#keys, { setRawMode: (isRaw: boolean) => stdin.setRawMode(isRaw) });
    this.#editor = createInterface({
      input: this.#keys,
      output: terminalOutput(),
      terminal: true,
      history: [...(history?.entries ?? [])],
      historySize,
      removeHistoryDuplicates: true,
    });
    this.#editor.on('line', (line) => this.#take(line));
    this.#editor.on('close', () => this.#end());
    this.#editor.on('SIGINT', () => this.interrupt());
    // The shell waits for the launcher, which a stop of this rank would not reach.
    this.#editor.on('SIGTSTP', () => {});
    stdin.on('data', (bytes: Buffer) => this.#onKeys(this.#decoder.write(bytes)));
    stdin.on('end', () => this.#editor.close());
    process.stdout.write(enablePasteMarks);
  }

  next(isContinued: boolean): Promise<string | null> {
    const line = this.#lines.shift();
    if (line !== undefined || this.#isClosed) return Promise.resolve(line ?? null);
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#editor.setPrompt(isContinued ? continuedPrompt : prompt);
      this.#editor.prompt();
      const held = this.#held;
      this.#held = '';
      this.#keys.write(held);
    });
  }

  close(): void {
    this.#editor.close();
  }

  /** Ctrl-C: stops the answer, else empties the line, else asks for another one, which ends the chat. */
  interrupt(): void {
    this.#held = '';
    if (this.#target.interrupt()) return;
    const wasTyped = this.#editor.line !== '';
    if (this.#target.discard() || wasTyped) {
      process.stdout.write('\n');
      this.#emptyLine();
    } else if (this.#numInterrupts++ === 0) {
      process.stdout.write(`\n${exitHint}`);
      this.#editor.prompt();
    } else this.close();
  }

  #emptyLine(): void {
    this.#editor.write(null, { ctrl: true, name: 'e' });
    this.#editor.write(null, { ctrl: true, name: 'u' });
    this.#editor.setPrompt(prompt);
    this.#editor.prompt();
  }

  #onKeys(keys: string): void {
    if (this.#waiting !== null) {
      this.#keys.write(this.#pastes.push(keys));
    } else if (keys.includes(interruptKey)) this.interrupt();
    else this.#held += this.#pastes.push(keys);
  }

  #take(line: string): void {
    this.#numInterrupts = 0;
    this.#history?.add(line);
    const resolve = this.#waiting;
    this.#waiting = null;
    if (resolve === null) this.#lines.push(withNewlines(line));
    else resolve(withNewlines(line));
  }

  #end(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    process.stdout.write(`\n${disablePasteMarks}`);
    this.#stdin.destroy();
    this.#waiting?.(null);
  }
}

/** Standard output. Where it is a pipe to the launcher, as with `--tee`, it has the width of the terminal behind it. */
function terminalOutput(): NodeJS.WriteStream {
  if (process.stdout.isTTY) return process.stdout;
  const terminal = new WriteStream(0);
  Object.defineProperty(process.stdout, 'columns', { get: () => terminal.columns });
  process.on('SIGWINCH', () => {
    // Node refreshes the size of its own standard streams only.
    (terminal as WriteStream & { _refreshSize(): void })._refreshSize();
    process.stdout.emit('resize');
  });
  return process.stdout;
}
