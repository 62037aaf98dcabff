/** The least that generates text: `ndsrun examples/basic.ts [MODEL] [PROMPT]`, or without ndsrun for one rank. */
import { fileURLToPath } from 'node:url';
import { LLM } from 'nano-dist-spec';

const [model = fileURLToPath(new URL('models/story-5m', import.meta.url)), prompt = 'Once upon a time'] = process.argv.slice(2);

await using llm = await LLM.load(model);
const output = await llm.generate(prompt, { maxTokens: 64, temperature: 0.7 });
console.log(prompt + output.text);
