/** The draft model: its compatibility with the target, and the load options that ranks receive. */
import { NdsError } from '../../protocol/errors.ts';
import type { DraftLoad } from '../../protocol/messages.ts';
import type { ResolvedSpeculativeConfig } from '../speculative/config.ts';
import { Tokenizer } from '../text/tokenizer.ts';
import type { Model } from './index.ts';

/** Load options for ranks. Beyond its own context the draft model proposes nothing. */
export function draftLoad({ path, config }: Model, speculative: ResolvedSpeculativeConfig, maxModelLen: number): DraftLoad {
  return {
    model: path,
    quantization: speculative.quantization,
    maxModelLen: Math.min(maxModelLen, config.contextLengths.max),
    isSharded: speculative.draftTensorParallelSize > 1,
    isGreedy: speculative.draftSampleMethod === 'greedy',
  };
}

/**
 * Checks that both models share token ids, since drafts are token ids. Vocabularies may be padded differently.
 * @param sampleVocabSize - ids below this can be drawn from the target
 * @throws NdsError `ERR_UNSUPPORTED` naming the first token that differs, or `ERR_TOKENIZER`.
 */
export async function checkDraftModel(
  draft: Model,
  model: Model,
  tokenizer: Tokenizer | undefined,
  sampleVocabSize: number,
): Promise<void> {
  const expected = `a draft model with the tokenizer of ${model.path}`;
  if (draft.config.vocabSize < sampleVocabSize) {
    throw new NdsError(
      'ERR_UNSUPPORTED',
      `Expected ${expected}, at least ${sampleVocabSize} tokens, but received ${draft.path} with ${draft.config.vocabSize}`,
    );
  }
  const other = await Tokenizer.load(draft.path);
  if (tokenizer === undefined || other === undefined) return;
  const id = tokenizer.firstDifference(other);
  if (id === null) return;
  const [theirs, ours] = [other.tokenText(id), tokenizer.tokenText(id)].map((text) => JSON.stringify(text));
  throw new NdsError(
    'ERR_UNSUPPORTED',
    `Expected ${expected}, where token ${id} is ${ours}, but received ${draft.path}, where it is ${theirs}`,
  );
}
