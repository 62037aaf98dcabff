/** Checkpoints of any size on a small disk: weights are zeros, in a file that is mostly a hole. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { headerOf, safetensors, smallLlama } from './model-folder.ts';

export interface SparseSizes {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
}

/** A Llama in float32; its folder is removed after the test. */
export function sparseModel(t: { teardown(handler: () => void): unknown }, sizes: SparseSizes): string {
  const { hiddenSize, intermediateSize, numLayers, numHeads } = sizes;
  const [embedding, norm] = [[smallLlama.vocab_size, hiddenSize], [hiddenSize]];
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': embedding,
    'model.norm.weight': norm,
    'lm_head.weight': embedding,
  };
  for (let layer = 0; layer < numLayers; layer++) {
    const add = (name: string, shape: number[]) => {
      shapes[`model.layers.${layer}.${name}.weight`] = shape;
    };
    for (const name of ['input_layernorm', 'post_attention_layernorm']) add(name, norm);
    for (const name of ['q', 'k', 'v', 'o']) add(`self_attn.${name}_proj`, [hiddenSize, hiddenSize]);
    for (const name of ['gate', 'up']) add(`mlp.${name}_proj`, [intermediateSize, hiddenSize]);
    add('mlp.down_proj', [hiddenSize, intermediateSize]);
  }
  const folder = mkdtempSync(join(tmpdir(), 'nds-sparse-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const heads = { num_attention_heads: numHeads, num_key_value_heads: numHeads };
  const config = { ...smallLlama, hidden_size: hiddenSize, intermediate_size: intermediateSize, num_hidden_layers: numLayers, ...heads };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const header = headerOf(shapes);
  const start = safetensors(header, { dataBytes: 0 });
  const file = openSync(join(folder, 'model.safetensors'), 'w');
  writeSync(file, start);
  ftruncateSync(file, start.length + Math.max(...Object.values(header).map(({ data_offsets }) => data_offsets[1])));
  closeSync(file);
  return folder;
}
