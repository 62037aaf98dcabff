/** Model folders: a small valid checkpoint, with defects that a test asks for. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface TestContext {
  teardown(handler: () => void): unknown;
}

/** An entry of a safetensors header. */
export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Two layers, four heads, two KV heads. */
export const smallLlama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 40,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  eos_token_id: 2,
} as const;

/** Shape of every tensor that `smallLlama` needs. */
export function smallLlamaShapes(): Record<string, number[]> {
  const shapes: Record<string, number[]> = { 'model.embed_tokens.weight': [40, 32], 'model.norm.weight': [32], 'lm_head.weight': [40, 32] };
  for (const layer of [0, 1]) {
    const layerShapes = {
      'input_layernorm.weight': [32],
      'post_attention_layernorm.weight': [32],
      'self_attn.q_proj.weight': [32, 32],
      'self_attn.k_proj.weight': [16, 32],
      'self_attn.v_proj.weight': [16, 32],
      'self_attn.o_proj.weight': [32, 32],
      'mlp.gate_proj.weight': [64, 32],
      'mlp.up_proj.weight': [64, 32],
      'mlp.down_proj.weight': [32, 64],
    };
    for (const [name, shape] of Object.entries(layerShapes)) shapes[`model.layers.${layer}.${name}`] = shape;
  }
  return shapes;
}

/** A header whose tensors are contiguous. */
export function headerOf(shapes: Record<string, number[]>, dtype = 'F32', elementBytes = 4): Record<string, HeaderEntry> {
  let end = 0;
  const header: Record<string, HeaderEntry> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const begin = end;
    end += shape.reduce((a, b) => a * b, elementBytes);
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  return header;
}

/**
 * A safetensors file of zeros. Parts not given follow from the header; `header` may also be arbitrary text or bytes.
 */
export function safetensors(
  header: Record<string, HeaderEntry> | string | Uint8Array,
  { dataBytes, headerLength }: { dataBytes?: number; headerLength?: bigint } = {},
): Buffer {
  const text = Buffer.from(typeof header === 'string' || header instanceof Uint8Array ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerLength ?? BigInt(text.length));
  const ends =
    typeof header === 'string' || header instanceof Uint8Array ? [] : Object.values(header).map((entry) => entry.data_offsets[1]);
  return Buffer.concat([length, text, Buffer.alloc(dataBytes ?? Math.max(0, ...ends))]);
}

/** Writes files to a folder that is removed after the test; objects are written as JSON. */
export function writeFolder(t: TestContext, files: Record<string, object | string | Uint8Array>): string {
  const folder = mkdtempSync(join(tmpdir(), 'nds-model-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content));
  }
  return folder;
}
