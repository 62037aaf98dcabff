/** Loading a model on the ranks of our own commands, with a bar. */
import { LLM, type LLMOptions } from '../../rank/index.ts';
import { openBar } from '../progress-bar.ts';

/** `LLM.load` with a bar on standard error, unless it takes less than a second or is quiet. @throws NdsError as `LLM.load`. */
export async function loadWithBar(model: string, options: LLMOptions, quiet: boolean): Promise<LLM> {
  const bar = openBar('loading', 'bytes', quiet);
  try {
    const llm = await LLM.load(model, { ...options, onProgress: ({ doneBytes, totalBytes }) => bar.update(doneBytes, totalBytes) });
    bar.end();
    return llm;
  } catch (error) {
    bar.erase();
    throw error;
  }
}
