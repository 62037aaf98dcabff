/** What each rank of `ndsrun generate` runs: `generate-rank REQUEST PROMPT`. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { LLM, type SamplingParams } from '../../rank/index.ts';
import { Continuations } from './continuations.ts';
import type { GenerateRequest } from './generate.ts';
import { rankMain } from './rank-main.ts';

const [request = '', prompt = ''] = process.argv.slice(2);
await rankMain(() => generate(JSON.parse(request) as GenerateRequest, prompt));

async function generate({ model, load, sampling, seed, json, quiet }: GenerateRequest, argument: string): Promise<void> {
  const start = performance.now();
  await using llm = await LLM.load(model, load);
  const loadedMs = performance.now() - start;
  const params: SamplingParams = { ...sampling, ...(seed === null ? {} : { seed: BigInt(seed) }) };
  const prompt = argument === '-' ? readPrompt() : argument;
  const isAlone = (sampling.n ?? 1) === 1;
  const continuations = new Continuations();
  let firstTokenMs = 0;
  const begin = performance.now();
  for await (const chunk of llm.stream(prompt, params)) {
    if (continuations.numTokens === 0) firstTokenMs = performance.now() - begin;
    continuations.take(chunk);
    if (!json && isAlone) process.stdout.write(chunk.text);
  }
  const totalMs = performance.now() - begin;
  const { numTokens } = continuations;
  const tokensPerSecond = numTokens > 1 ? ((numTokens - 1) * 1000) / (totalMs - firstTokenMs) : null;
  const timing = { loadedMs, firstTokenMs, totalMs, tokensPerSecond };
  if (json) {
    const outputs = continuations.describe(prompt).map((output) => ({ ...output, timing }));
    process.stdout.write(publicJson(isAlone ? outputs[0] : outputs));
  } else if (!isAlone) {
    process.stdout.write(continuations.text);
  }
  process.stdout.write('\n');
  if (quiet) return;
  const rate = tokensPerSecond === null ? '' : `, then ${tokensPerSecond.toFixed(1)} tokens/s`;
  process.stderr.write(`${numTokens} tokens: model loaded in ${seconds(loadedMs)}, first token after ${seconds(firstTokenMs)}${rate}\n`);
}

function readPrompt(): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(readFileSync(0));
  } catch (error) {
    throw new NdsError('ERR_REQUEST', `Expected a prompt in UTF-8 on standard input but received ${(error as Error).message}`);
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
