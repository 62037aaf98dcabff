/** A rank of `ndsrun generate`: `generate-rank REQUEST prompt PROMPT`, or `generate-rank REQUEST messages JSON…`. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import type { ChatMessage, LLM, RequestOutput, SamplingParams, StreamChunk } from '../../rank/index.ts';
import { systemFirst } from '../chat/conversation.ts';
import type { GenerateRequest } from './generate.ts';
import { describeCuts, describeOutput, describeSpeculation, textOf } from './generate-output.ts';
import { rankMain } from './rank-main.ts';
import { loadWithBar } from './rank-progress.ts';

const [request = '', kind = '', ...texts] = process.argv.slice(2);
await rankMain(() => generate(JSON.parse(request) as GenerateRequest));

async function generate({ model, load, sampling, seed, chat, json, quiet }: GenerateRequest): Promise<void> {
  const start = performance.now();
  await using llm = await loadWithBar(model, load, quiet);
  const loadedMs = performance.now() - start;
  const maxTokens = sampling.maxTokens ?? llm.defaultSamplingParams.maxTokens ?? llm.options.maxModelLen;
  const params: SamplingParams = { ...sampling, maxTokens, ...(seed === null ? {} : { seed: BigInt(seed) }) };
  const input = readInput(chat);
  const begin = performance.now();
  const timing = () => describeTiming(llm, loadedMs, performance.now() - begin);
  const cuts: Cut[] = [];
  if (!json && (params.n ?? 1) === 1) {
    const chunks = typeof input === 'string' ? llm.stream(input, params) : llm.streamChat(input, params);
    cuts.push(await write(chunks));
  } else {
    const output: RequestOutput = await (typeof input === 'string' ? llm.generate(input, params) : llm.chat(input, params));
    process.stdout.write(json ? publicJson(describeOutput(output, timing())) : textOf(output));
    cuts.push(...output.outputs.map(({ finishReason, tokenIds }) => ({ finishReason, numTokens: tokenIds.length })));
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
  process.stderr.write(describeCuts(cuts, maxTokens));
}

type Cut = Parameters<typeof describeCuts>[0][number];

/** Writes a text as it comes. */
async function write(chunks: AsyncIterable<StreamChunk>): Promise<Cut> {
  let numTokens = 0;
  let finishReason: StreamChunk['finishReason'] = null;
  for await (const chunk of chunks) {
    process.stdout.write(chunk.text);
    numTokens += chunk.tokenIds.length;
    finishReason = chunk.finishReason;
  }
  return { finishReason, numTokens };
}

/** Milliseconds to the first token and to the end of the request, and the rate in between. */
function describeTiming(llm: LLM, loadedMs: number, totalMs: number) {
  const { numTokens, histograms } = llm.stats();
  const firstTokenMs = (histograms.timeToFirstToken.min ?? 0) * 1000;
  const tokensPerSecond = numTokens > 1 ? ((numTokens - 1) * 1000) / (totalMs - firstTokenMs) : null;
  return { loadedMs, firstTokenMs, totalMs, tokensPerSecond };
}

/** The prompt, or the conversation to answer. */
function readInput(chat: GenerateRequest['chat']): string | ChatMessage[] {
  if (kind === 'messages') return JSON.parse(texts.join('')) as ChatMessage[];
  const [argument = ''] = texts;
  const prompt = argument === '-' ? readPrompt() : argument;
  return chat === null ? prompt : systemFirst(chat.system, [{ role: 'user', content: prompt }]);
}

/** Standard input, without the newline that ends its last line. */
function readPrompt(): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(readFileSync(0)).replace(/\r?\n$/, '');
  } catch (error) {
    throw new NdsError('ERR_REQUEST', `Expected a prompt in UTF-8 on standard input but received ${(error as Error).message}`);
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
