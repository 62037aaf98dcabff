/** What each rank of `ndsrun generate` runs: `generate-rank REQUEST PROMPT`. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { LLM, type SamplingParams } from '../../rank/index.ts';
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
  let text = '';
  const tokenIds: number[] = [];
  let last = null;
  let firstTokenMs = 0;
  const begin = performance.now();
  for await (const chunk of llm.stream(prompt, params)) {
    if (tokenIds.length === 0) firstTokenMs = performance.now() - begin;
    text += chunk.text;
    tokenIds.push(...chunk.tokenIds);
    last = chunk;
    if (!json) process.stdout.write(chunk.text);
  }
  const totalMs = performance.now() - begin;
  const tokensPerSecond = tokenIds.length > 1 ? ((tokenIds.length - 1) * 1000) / (totalMs - firstTokenMs) : null;
  const timing = { loadedMs, firstTokenMs, totalMs, tokensPerSecond };
  if (json) {
    const output = {
      prompt,
      text,
      tokenIds,
      seed: String(last?.seed),
      finishReason: last?.finishReason,
      stopReason: last?.stopReason,
      timing,
    };
    process.stdout.write(publicJson(output));
  }
  process.stdout.write('\n');
  if (quiet) return;
  const rate = tokensPerSecond === null ? '' : `, then ${tokensPerSecond.toFixed(1)} tokens/s`;
  process.stderr.write(
    `${tokenIds.length} tokens: model loaded in ${seconds(loadedMs)}, first token after ${seconds(firstTokenMs)}${rate}\n`,
  );
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
