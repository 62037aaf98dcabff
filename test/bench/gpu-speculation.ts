/**
 * What drafts of a model gain on a device: `node bin/ndsrun.js test/bench/gpu-speculation.ts MODEL DRAFT [BATCHES]`. The draft may be the
 * model's own first layers (make_model.py): what it gains is that of its acceptance rate, which is printed. Prints the lines that
 * gpu-table.mjs reads.
 */
import { basename } from 'node:path';
import { LLM, type LLMOptions } from 'nano-dist-spec';
import { report } from './device-peaks.ts';

const [, , path = '', draft = '', batchList = '1,8'] = process.argv;
const batches = batchList.split(',').map(Number);
const shape = basename(path);
const maxTokens = Number(process.env['NDS_BENCH_TOKENS'] ?? 128);

async function run(system: string, options: LLMOptions): Promise<void> {
  const llm = await LLM.load(path, { device: 'cuda', maxModelLen: 1024, maxNumSeqs: Math.max(...batches), ...options });
  for (const batch of batches) {
    const generate = async () => {
      const prompts = Array.from({ length: batch }, (_, i) => ({
        promptTokenIds: Array.from({ length: 32 }, (_, k) => (k * 31 + i * 7) % 500),
      }));
      const start = performance.now();
      await llm.generate(prompts, { temperature: 0, ignoreEos: true, maxTokens });
      return (performance.now() - start) / 1000;
    };
    await generate();
    const before = llm.stats().speculation;
    const seconds = await generate();
    const after = llm.stats().speculation;
    const numDrafts = (after?.numDraftTokens ?? 0) - (before?.numDraftTokens ?? 0);
    const numAccepted = (after?.numAcceptedTokens ?? 0) - (before?.numAcceptedTokens ?? 0);
    if (after !== null) console.log(`${shape}, ${system}, batch ${batch}: ${numAccepted} of ${numDrafts} drafts accepted`);
    report({ shape, case: `generate ${batch}`, system, tokensPerSecond: (batch * maxTokens) / seconds, share: null });
  }
  await llm[Symbol.asyncDispose]();
}

await run('nds', {});
await run('nds, drafts', { speculativeConfig: { model: draft } });
await run('nds, 4 drafts', { speculativeConfig: { model: draft, numSpeculativeTokens: 4, adaptiveK: false } });
