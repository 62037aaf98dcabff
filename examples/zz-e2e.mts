import { LLM } from 'nano-dist-spec';
import { readFileSync } from 'node:fs';
const m = process.argv[2] ?? '/work/main/examples/models/story-5m';
let t = performance.now();
await using llm = await LLM.load(m, { dtype: 'float32' });
console.log('load', performance.now()-t, llm.options, llm.shards);
const { cases } = JSON.parse(readFileSync(m + '/expected.json', 'utf8'));
for (const c of cases) {
  const o = await llm.generate(c.prompt, { temperature: 0, maxTokens: c.token_ids.length, ignoreEos: true });
  console.log(JSON.stringify(o.promptTokenIds)===JSON.stringify(c.prompt_token_ids), JSON.stringify(o.tokenIds)===JSON.stringify(c.token_ids), o.text===c.text, o.outputs[0].finishReason);
}
const all = await llm.generate(cases.map((c:any)=>c.prompt), { temperature: 0, maxTokens: 128, ignoreEos: true });
console.log(all.map((o,i)=>JSON.stringify(o.tokenIds.slice(0,cases[i].token_ids.length))===JSON.stringify(cases[i].token_ids.slice(0,128))));
t = performance.now();
const o = await llm.generate('Once upon a time', { temperature: 0, maxTokens: 500, ignoreEos: true });
const dt = performance.now()-t;
console.log(o.tokenIds.length/dt*1000, 'tok/s', llm.stats());
const l = await llm.computeLogits(cases[0].prompt_token_ids);
console.log(l.shape, l.data.slice(0,4));
