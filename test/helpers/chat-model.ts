/** A small real model that can chat: the shipped one with a chat template added. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyGoodModel, editJson } from './checkpoint-edits.ts';

/** Contents one a line, an answer closed by the end-of-sequence token. */
const template =
  "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}Once upon{% endif %}";

/** Its folder, which is removed after the test. */
export function chatModel(t: { teardown(handler: () => void): unknown }): string {
  const folder = mkdtempSync(join(tmpdir(), 'chat-model-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  copyGoodModel(folder);
  editJson(folder, 'tokenizer_config.json', { chat_template: template });
  return folder;
}
