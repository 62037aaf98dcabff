/** Lines of earlier chats, in a file of the user's. */
import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** Lines kept. */
export const historySize = 1000;

/** `$XDG_STATE_HOME/nano-dist-spec/chat-history`, by default below `~/.local/state`. */
export function historyFile(env: NodeJS.ProcessEnv = process.env): string {
  return join(env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state'), 'nano-dist-spec', 'chat-history');
}

export class ChatHistory {
  /** Newest first. */
  readonly entries: readonly string[];
  readonly #file: string;
  readonly #onError: (error: Error) => void;
  #isLost = false;

  /** @param onError - called once, for a file that cannot be read or written: lines are not kept then. */
  constructor(file: string, onError: (error: Error) => void) {
    [this.#file, this.#onError] = [file, onError];
    this.entries = this.#try(() => this.#read()) ?? [];
  }

  add(line: string): void {
    if (line.trim() === '') return;
    this.#try(() => appendFileSync(this.#file, `${line}\n`, { mode: 0o600 }));
  }

  /** Shortens the file where it has grown to twice its size: it is rewritten in one step, as other chats may read it. */
  #read(): string[] {
    mkdirSync(dirname(this.#file), { recursive: true, mode: 0o700 });
    const lines = readIfThere(this.#file)
      .split('\n')
      .filter((line) => line !== '');
    const newest = lines.slice(-historySize);
    if (lines.length > 2 * historySize) {
      writeFileSync(`${this.#file}.${process.pid}`, `${newest.join('\n')}\n`, { mode: 0o600 });
      renameSync(`${this.#file}.${process.pid}`, this.#file);
    }
    return newest.reverse();
  }

  #try<T>(action: () => T): T | undefined {
    if (this.#isLost) return undefined;
    try {
      return action();
    } catch (error) {
      this.#isLost = true;
      this.#onError(error as Error);
      return undefined;
    }
  }
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
