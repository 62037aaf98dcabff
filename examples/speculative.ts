/**
 * Speculative decoding at work: `ndsrun --nproc-per-node=2 examples/speculative.ts [TARGET] [DRAFT] [PROMPT]` tells a story in which
 * tokens that a small model drafted and the large one accepted are green, then the same story without drafts.
 */
import { fileURLToPath } from 'node:url';
import { LLM, type SpeculativeConfig, type StreamChunk } from 'nano-dist-spec';

const shipped = (name: string) => fileURLToPath(new URL(`models/${name}`, import.meta.url));
const [target = shipped('story-5m'), draft = shipped('story-180k'), prompt = 'Once upon a time'] = process.argv.slice(2);

// With several ranks standard output is a pipe to ndsrun, which says by FORCE_COLOR that a terminal is behind it.
const { NO_COLOR, FORCE_COLOR } = process.env;
const hasColor = !NO_COLOR && (process.stdout.isTTY || (FORCE_COLOR !== undefined && FORCE_COLOR !== '0'));
const green = (text: string) => (hasColor ? `\x1b[32m${text}\x1b[39m` : text);

/** The story that a seed gives. What stands after the first `LLM.load` runs on rank 0 only. */
async function tell(speculativeConfig: SpeculativeConfig | undefined, onChunk: (chunk: StreamChunk) => void) {
  await using llm = await LLM.load(target, { speculativeConfig });
  const params = { temperature: 0.7, seed: 7, logprobs: 0 };
  // The first steps of a process are slow: none of them is in the measurement.
  await llm.generate(prompt, { ...params, maxTokens: 32 });
  if (speculativeConfig !== undefined) process.stdout.write(prompt);
  const tokenIds: number[] = [];
  let firstTokenAt = 0;
  for await (const chunk of llm.stream(prompt, { ...params, maxTokens: 200 })) {
    if (tokenIds.length === 0) firstTokenAt = performance.now();
    tokenIds.push(...chunk.tokenIds);
    onChunk(chunk);
  }
  return { tokenIds, tokensPerSecond: (tokenIds.length - 1) / ((performance.now() - firstTokenAt) / 1000) };
}

const steps: NonNullable<StreamChunk['drafted']>[] = [];

/** Shows what a step yields: the drafts that the target accepted, then one token that is the target's own. */
function show({ logprobs, drafted, finishReason }: StreamChunk): void {
  if (drafted !== null) steps.push(drafted);
  const numAccepted = drafted?.numAccepted ?? 0;
  // A token that ends the story is no part of it.
  const tokens = (finishReason === 'stop' ? logprobs?.slice(0, -1) : logprobs) ?? [];
  for (const [i, { token }] of tokens.entries()) process.stdout.write(i < numAccepted ? green(token ?? '') : (token ?? ''));
}

// Always five drafts; by default each step chooses how many are worth their time, up to that.
const numSpeculativeTokens = 5;
const fast = await tell({ model: draft, numSpeculativeTokens, adaptiveK: false }, show);
const plain = await tell(undefined, () => {});

console.log('\n\nposition   drafted   accepted');
for (let position = 1; position <= numSpeculativeTokens; position++) {
  const drafted = steps.filter(({ numDrafts }) => numDrafts >= position).length;
  const accepted = steps.filter(({ numAccepted }) => numAccepted >= position).length;
  const share = drafted === 0 ? '-' : `${((100 * accepted) / drafted).toFixed(0)} %`;
  console.log(`${`${position}`.padStart(8)}${`${drafted}`.padStart(10)}${share.padStart(11)}`);
}
// Stories this simple are easy to draft: of real pairs of models, the first draft is accepted in 0.6 to 0.8 of the cases.
const perStep = (fast.tokenIds.length - 1) / steps.length;
const speedup = fast.tokensPerSecond / plain.tokensPerSecond;
console.log(
  `\n${perStep.toFixed(1)} tokens a step; ${fast.tokensPerSecond.toFixed(0)} tokens/s instead of ${plain.tokensPerSecond.toFixed(0)}: ${speedup.toFixed(2)} times as fast`,
);

if (fast.tokenIds.join() !== plain.tokenIds.join()) throw new Error('Expected the same tokens with drafts and without but received others');
console.log(`all ${plain.tokenIds.length} tokens are identical with drafts and without`);
