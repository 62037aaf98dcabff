/** Prompts of `ndsrun bench spec`. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import type { LLM, Prompt } from '../../rank/index.ts';
import type { BenchSpecRequest } from './bench-spec.ts';

const kinds = ['brave', 'tiny', 'happy', 'sad', 'small', 'red', 'old', 'big'];
const heroes = ['cat', 'dog', 'girl', 'boy', 'bird', 'fish', 'tree', 'car'];

/**
 * `numPrompts` prompts: the file's text each time, or openings of stories. For methods that draft from the text, each
 * opening follows a story that the model generated from it greedily, so that the continuation repeats some of that
 * story.
 */
export async function buildPrompts(llm: LLM, request: BenchSpecRequest, numPrompts: number): Promise<Prompt[]> {
  const { promptFile, method, maxTokens } = request;
  if (promptFile !== null) return new Array<Prompt>(numPrompts).fill(readText(promptFile));
  const openings = Array.from({ length: numPrompts }, (_, i) => {
    const kind = kinds[(i + (i >> 3)) % kinds.length];
    return `Once upon a time, there was a ${kind} ${heroes[i % heroes.length]}`;
  });
  if (method === 'draft_model') return openings;
  const storyLen = Math.min(maxTokens, Math.floor(llm.options.maxModelLen / 3));
  const stories = await llm.generate(openings, { temperature: 0, maxTokens: storyLen, ignoreEos: true });
  return stories.map(({ promptTokenIds, tokenIds }) => ({ promptTokenIds: [...promptTokenIds, ...tokenIds, ...promptTokenIds] }));
}

function readText(file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(readFileSync(file));
  } catch (error) {
    throw new NdsError('ERR_REQUEST', `Expected a text in UTF-8 in ${file} but received ${(error as Error).message}`);
  }
}
