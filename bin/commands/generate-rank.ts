/** A rank of `ndsrun generate`: `generate-rank REQUEST PROMPT`. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import type { LLM, SamplingParams } from '../../rank/index.ts';
import type { GenerateRequest } from './generate.ts';
import { describeOutput, describeSpeculation, textOf } from './generate-output.ts';
import { rankMain } from './rank-main.ts';
import { loadWithBar } from './rank-progress.ts';

const [request = '', prompt = ''] = process.argv.slice(2);
await rankMain(() => generate(JSON.parse(request) as GenerateRequest, prompt));

async function generate({ model, load, sampling, seed, json, quiet }: GenerateRequest, argument: string): Promise<void> {
  const start = performance.now();
  await using llm = await loadWithBar(model, load, quiet);
  const loadedMs = performance.now() - start;
  const params: SamplingParams = { ...sampling, ...(seed === null ? {} : { seed: BigInt(seed) }) };
  const prompt = argument === '-' ? readPrompt() : argument;
  const begin = performance.now();
  const timing = () => describeTiming(llm, loadedMs, performance.now() - begin);
  if (!json && (params.n ?? 1) === 1) {
    for await (const { text } of llm.stream(prompt, params)) process.stdout.write(text);
  } else {
    const output = await llm.generate(prompt, params);
    process.stdout.write(json ? publicJson(describeOutput(output, timing())) : textOf(output));
  }
  process.stdout.write('\n');
  if (quiet) return;
  const { firstTokenMs, tokensPerSecond } = timing();
  const rate = tokensPerSecond === null ? '' : `, then ${tokensPerSecond.toFixed(1)} tokens/s`;
  const { numTokens, speculation } = llm.stats();
  const drafts = speculation === null ? '' : `; ${describeSpeculation(speculation)}`;
  process.stderr.write(
    `${numTokens} tokens: model loaded in ${seconds(loadedMs)}, first token after ${seconds(firstTokenMs)}${rate}${drafts}\n`,
  );
}

/** Milliseconds to the first token and to the end of the request, and the rate in between. */
function describeTiming(llm: LLM, loadedMs: number, totalMs: number) {
  const { numTokens, histograms } = llm.stats();
  const firstTokenMs = (histograms.timeToFirstToken.min ?? 0) * 1000;
  const tokensPerSecond = numTokens > 1 ? ((numTokens - 1) * 1000) / (totalMs - firstTokenMs) : null;
  return { loadedMs, firstTokenMs, totalMs, tokensPerSecond };
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
