/** Where the lines of a chat come from. */
import { NdsError } from '../../protocol/errors.ts';

/** One reader. */
export interface ChatInput {
  /** The next line without its newline; null at the end. @param isContinued - whether a message goes on */
  next(isContinued: boolean): Promise<string | null>;
  /** Ends the input: a line that is awaited is null. */
  close(): void;
}

/** Lines of a stream of UTF-8, such as a pipe. The last may lack its newline. */
export class StreamInput implements ChatInput {
  readonly #stream: NodeJS.ReadStream;
  readonly #lines: AsyncGenerator<string, void, undefined>;

  constructor(stream: NodeJS.ReadStream) {
    this.#stream = stream;
    this.#lines = linesOf(stream);
  }

  /** @throws NdsError `ERR_REQUEST` for bytes that are not UTF-8. */
  async next(): Promise<string | null> {
    const { value } = await this.#lines.next();
    return value ?? null;
  }

  close(): void {
    this.#stream.destroy();
  }
}

async function* linesOf(stream: NodeJS.ReadStream): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  try {
    for await (const chunk of stream) {
      const lines = (rest + decoder.decode(chunk as Buffer, { stream: true })).split(/\r?\n/);
      rest = lines.pop() ?? '';
      yield* lines;
    }
    rest += decoder.decode();
  } catch (error) {
    // Closed from our side.
    if ((error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE') return;
    if (!(error instanceof TypeError)) throw error;
    throw new NdsError('ERR_REQUEST', `Expected lines in UTF-8 on standard input but received ${error.message}`);
  }
  if (rest !== '') yield rest;
}
