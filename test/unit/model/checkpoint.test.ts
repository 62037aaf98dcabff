/** Checkpoint folders: wrong safetensors headers, indexes that disagree with their shards, tensors that do not fit. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { readSafetensors } from '../../../rank/model/checkpoint/safetensors.ts';
import { readModel } from '../../../rank/model/index.ts';
import { findDuplicateKey } from '../../../rank/model/json.ts';
import { goldenPath } from '../../helpers/goldens.ts';
import { type HeaderEntry, headerOf, safetensors, smallLlama, smallLlamaShapes, writeFolder } from '../../helpers/model-folder.ts';

const index = (shards: Record<string, string>) => ({ metadata: {}, weight_map: shards });

/** `smallLlama` with some shapes changed, added or (`null`) removed. */
function small(t: Test, changes: Record<string, number[] | null> = {}, config: object = {}): string {
  const shapes = Object.fromEntries(
    Object.entries({ ...smallLlamaShapes(), ...changes }).filter((entry): entry is [string, number[]] => entry[1] !== null),
  );
  return writeFolder(t, { 'config.json': { ...smallLlama, ...config }, 'model.safetensors': safetensors(headerOf(shapes)) });
}

test('a valid folder', async (t) => {
  const model = readModel(small(t));
  t.equal(model.storedDtype, 'float32');
  t.match(model.tensors.layers[1]?.downProj, {
    weight: { name: 'model.layers.1.mlp.down_proj.weight', numRows: 32, numCols: 64 },
    bias: null,
  });
  t.match(model.tensors.norm, { numRows: 1, numCols: 32 });
});

test('paths that are no model', async (t) => {
  const folder = writeFolder(t, { 'config.json': smallLlama });
  t.throws(() => readModel(join(folder, 'nothing')), { code: 'ERR_MODEL_NOT_FOUND', message: /nothing/ });
  t.throws(() => readModel(join(folder, 'config.json')), { code: 'ERR_MODEL_NOT_FOUND' }, 'a file');
  t.throws(() => readModel(writeFolder(t, {})), { code: 'ERR_MODEL_NOT_FOUND', message: /config.json/ });
  t.throws(() => readModel(folder), { code: 'ERR_MODEL_NOT_FOUND', message: /model.safetensors/ });
  mkdirSync(join(folder, 'model.safetensors'));
  t.throws(() => readModel(folder), { code: 'ERR_CHECKPOINT', message: /regular file/ });
});

test('config.json that is no JSON object', async (t) => {
  for (const content of ['', '{', '[1]', 'null', '"text"', Buffer.from([0x7b, 0xff, 0x7d])]) {
    t.throws(
      () => readModel(writeFolder(t, { 'config.json': content })),
      { code: 'ERR_CONFIG', message: /config.json/ },
      JSON.stringify(content.toString()),
    );
  }
  const deep = writeFolder(t, { 'config.json': `{"architectures": ${'['.repeat(1e6)}${']'.repeat(1e6)}}` });
  t.throws(() => readModel(deep), { code: 'ERR_CONFIG', message: /architectures/ }, 'deep nesting');
  t.throws(() => readModel(writeFolder(t, { 'config.json': smallLlama, 'generation_config.json': '[' })), {
    code: 'ERR_CONFIG',
    message: /generation_config.json/,
  });
});

test('files that are truncated or lie about their length', async (t) => {
  const header = headerOf({ a: [4] });
  const refuse = (content: Uint8Array, message: RegExp) => {
    const folder = writeFolder(t, { 'model.safetensors': content });
    t.throws(() => readSafetensors(join(folder, 'model.safetensors')), { code: 'ERR_CHECKPOINT', message }, String(message));
  };
  refuse(Buffer.alloc(0), /at least 8 bytes/);
  refuse(Buffer.alloc(7), /at least 8 bytes/);
  refuse(Buffer.alloc(8), /JSON/);
  refuse(safetensors(header, { headerLength: 10_000n }), /header within its/);
  refuse(safetensors(header, { headerLength: 100_000_001n }), /header of at most/);
  refuse(safetensors(header, { headerLength: 0xffff_ffff_ffff_ffffn }), /header of at most/);
  refuse(safetensors(header, { headerLength: 20n }), /JSON/);
  refuse(safetensors(header, { dataBytes: 15 }), /16 bytes of data/);
  refuse(safetensors(header, { dataBytes: 17 }), /16 bytes of data/);
  refuse(safetensors(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])), /UTF-8/);
  refuse(safetensors('[]'), /object/);
  refuse(safetensors(' {}'), /begins with \{/);
});

test('headers that contradict themselves', async (t) => {
  const f32 = (shape: unknown, data_offsets: unknown, dtype: unknown = 'F32') => ({ dtype, shape, data_offsets }) as HeaderEntry;
  const refuse = (header: Record<string, unknown> | string, message: RegExp) => {
    const text = typeof header === 'string' ? header : JSON.stringify(header);
    const folder = writeFolder(t, { 'model.safetensors': safetensors(text, { dataBytes: 32 }) });
    t.throws(() => readSafetensors(join(folder, 'model.safetensors')), { code: 'ERR_CHECKPOINT', message }, String(message));
  };
  refuse({ a: f32([4], [0, 16]), b: f32([4], [12, 28]) }, /"b" to begin at byte 16 .* received 12: an overlap/);
  refuse({ a: f32([4], [0, 16]), b: f32([3], [20, 32]) }, /"b" to begin at byte 16 .* received 20: a gap/);
  refuse({ a: f32([4], [16, 32]) }, /"a" to begin at byte 0/);
  refuse({ a: f32([4], [0, 32]) }, /16 bytes for tensor "a"/);
  refuse({ a: f32([4], [16, 0]) }, /16 bytes for tensor "a"/);
  refuse({ a: f32([-4], [0, 16]) }, /sizes for the shape of tensor "a"/);
  refuse({ a: f32([4.5], [0, 18]) }, /sizes for the shape/);
  refuse({ a: f32([2 ** 60, 2 ** 60], [0, 16]) }, /shape of tensor "a"/);
  refuse({ a: f32([2 ** 52, 2 ** 52], [0, 16]) }, /bytes for tensor "a"/);
  refuse({ a: f32('4', [0, 16]) }, /shape/);
  refuse({ a: f32([4], [0, 16, 32]) }, /two byte offsets/);
  refuse({ a: f32([4], [0, 1e300]) }, /two byte offsets/);
  refuse({ a: f32([4], undefined) }, /two byte offsets/);
  refuse({ a: f32([4], [0, 16], 'F31') }, /dtype .* "F31"/);
  refuse({ a: f32([4], [0, 16], 'toString') }, /dtype/);
  refuse({ a: [4] }, /object for tensor "a"/);
  refuse({ __metadata__: 'text' }, /__metadata__/);
  refuse('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, NaN]}}', /JSON/);
  refuse('{"a": 1, "a": 2}', /"a" twice/);
  refuse('{"a": {"dtype": "F32", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', /"dtype" twice/);
  refuse('{"__proto__": {"dtype": "F32", "shape": [4], "data_offsets": [4, 20]}}', /"__proto__" to begin at byte 0/);
  refuse('{"a": {"__proto__": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}}', /dtype/);
});

test('duplicate keys hide nowhere', async (t) => {
  t.equal(findDuplicateKey('{"a": 1, "\\u0061": 2}'), 'a', 'escaped');
  t.equal(findDuplicateKey('{"a": {"b": 1}, "c": [{"d": 1}, {"d": 1, "e": 2, "d": 3}]}'), 'd', 'nested');
  t.equal(findDuplicateKey(`{"a": "${'x'.repeat(2e7)}${'\\\\'.repeat(1e6)}", "b": 1, "b": 2}`), 'b', 'long strings');
  t.equal(findDuplicateKey('{"a": "a", "b": ["a", "a"], "c": {"a": "\\"a\\": 1, \\\\"}, "d": {"a": []}}'), undefined);
});

test('100 000 entries', async (t) => {
  const shapes = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`tensor.${i}`, [1]]));
  const folder = writeFolder(t, { 'config.json': smallLlama, 'model.safetensors': safetensors(headerOf(shapes)) });
  t.equal(readSafetensors(join(folder, 'model.safetensors')).length, 100_000);
  t.throws(() => readModel(folder), { code: 'ERR_TENSOR', message: /model.embed_tokens.weight/ });
});

test('an index and its shards', async (t) => {
  const [first, second] = [headerOf({ a: [1] }), headerOf({ b: [1] })];
  const refuse = (weightMap: unknown, shards: Record<string, Record<string, HeaderEntry>>, code: string, message: RegExp) => {
    const files = Object.fromEntries(Object.entries(shards).map(([name, header]) => [name, safetensors(header)]));
    const folder = writeFolder(t, { 'config.json': smallLlama, 'model.safetensors.index.json': { weight_map: weightMap }, ...files });
    t.throws(() => readModel(folder), { code, message }, String(message));
  };
  const one = 'one.safetensors';
  const two = 'two.safetensors';
  refuse({ a: one, b: two }, { [one]: first }, 'ERR_CHECKPOINT', /two.safetensors .*nothing there/);
  refuse({ a: one, b: one }, { [one]: first }, 'ERR_TENSOR', /"b" in .*one.safetensors/);
  refuse(
    { a: one, b: two },
    { [one]: first, [two]: headerOf({ b: [1], c: [1] }) },
    'ERR_TENSOR',
    /"c" in two.safetensors but received nothing/,
  );
  refuse(
    { a: one, b: two },
    { [one]: first, [two]: headerOf({ b: [1], a: [1] }) },
    'ERR_TENSOR',
    /"a" once .*one.safetensors and in .*two.safetensors/,
  );
  refuse({ a: two, b: one }, { [one]: first, [two]: second }, 'ERR_TENSOR', /place tensor/);
  refuse({ a: '../one.safetensors' }, {}, 'ERR_CHECKPOINT', /name of a .safetensors file for tensor "a"/);
  refuse({ a: '/etc/one.safetensors' }, {}, 'ERR_CHECKPOINT', /name of a .safetensors file/);
  refuse({ a: 'model.bin' }, {}, 'ERR_CHECKPOINT', /name of a .safetensors file/);
  refuse({ a: 1 }, {}, 'ERR_CHECKPOINT', /name of a .safetensors file/);
  refuse([one], {}, 'ERR_CHECKPOINT', /weight_map/);
  const twice = writeFolder(t, {
    'config.json': smallLlama,
    'model.safetensors.index.json': '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}',
  });
  t.throws(() => readModel(twice), { code: 'ERR_CHECKPOINT', message: /"a" twice/ });
});

test('shards and links as a download cache has them', async (t) => {
  const entries = Object.entries(smallLlamaShapes());
  const shards = ['a.safetensors', 'b.safetensors'];
  const store = writeFolder(t, {});
  const folder = writeFolder(t, {
    'config.json': smallLlama,
    'model.safetensors.index.json': index(Object.fromEntries(entries.map(([name], i) => [name, shards[i % 2] as string]))),
  });
  for (const [i, shard] of shards.entries()) {
    writeFileSync(join(store, shard), safetensors(headerOf(Object.fromEntries(entries.filter((_, j) => j % 2 === i)))));
    symlinkSync(join(store, shard), join(folder, shard));
  }
  t.equal(
    new Set(Object.values(readModel(folder).tensors.layers[0] ?? {}).map((x) => (x === null || 'weight' in x ? x?.weight.path : x.path)))
      .size > 1,
    true,
  );
});

test('tensors that do not fit config.json', async (t) => {
  t.throws(() => readModel(small(t, { 'model.norm.weight': null })), { code: 'ERR_TENSOR', message: /"model.norm.weight"/ }, 'missing');
  t.throws(() => readModel(small(t, { 'model.norm.weight': [31] })), {
    code: 'ERR_TENSOR',
    message: /\[32\] for tensor "model.norm.weight" .* \[31\]/,
  });
  t.throws(() => readModel(small(t, { 'model.norm.weight': [1, 32] })), { code: 'ERR_TENSOR', message: /\[1,32\]/ });
  t.throws(() => readModel(small(t, { 'lm_head.weight': [32, 40] })), { code: 'ERR_TENSOR', message: /"lm_head.weight"/ }, 'transposed');
  t.throws(
    () => readModel(small(t, { 'model.layers.0.self_attn.q_proj.bias': [32] })),
    { code: 'ERR_TENSOR', message: /q_proj.bias/ },
    'a bias that nobody asked for',
  );
  t.throws(
    () => readModel(small(t, { 'model.layers.2.input_layernorm.weight': [32] })),
    { code: 'ERR_TENSOR', message: /layers.2/ },
    'a layer too many',
  );
  t.throws(
    () => readModel(small(t, {}, { attention_bias: true })),
    { code: 'ERR_TENSOR', message: /q_proj.bias/ },
    'a bias that is not there',
  );
  t.ok(readModel(small(t, { 'model.layers.0.self_attn.rotary_emb.inv_freq': [4] })), 'frequencies that old checkpoints saved');
});

test('types of tensors', async (t) => {
  const write = (dtypeOf: (name: string) => [string, number]) => {
    let end = 0;
    const header = Object.fromEntries(
      Object.entries(smallLlamaShapes()).map(([name, shape]) => {
        const [dtype, bytes] = dtypeOf(name);
        const begin = end;
        end += shape.reduce((a, b) => a * b, bytes);
        return [name, { dtype, shape, data_offsets: [begin, end] as [number, number] }];
      }),
    );
    return writeFolder(t, { 'config.json': smallLlama, 'model.safetensors': safetensors(header) });
  };
  t.equal(readModel(write((name) => (name.includes('norm') ? ['F32', 4] : ['BF16', 2]))).storedDtype, 'bfloat16');
  t.throws(() => readModel(write(() => ['F64', 8])), {
    code: 'ERR_TENSOR',
    message: /F32, BF16 or F16 for tensor "model.embed_tokens.weight" .* F64/,
  });
  const [mixed] = readModel(write((name) => (name.includes('0.self_attn.k') ? ['F16', 2] : ['BF16', 2]))).tensors.layers;
  t.match(mixed, { qProj: { weight: { dtype: 'bfloat16' } }, kProj: { weight: { dtype: 'float16' } } }, 'a piece of another type');
});

test('tied embeddings', async (t) => {
  const tied = { tie_word_embeddings: true };
  const withoutHead = readModel(small(t, { 'lm_head.weight': null }, tied)).tensors;
  t.equal(withoutHead.lmHead.name, 'model.embed_tokens.weight');
  t.equal(readModel(small(t, {}, tied)).tensors.lmHead.name, 'lm_head.weight', 'a head of its own counts');
  t.equal(
    readModel(small(t, { 'model.embed_tokens.weight': null }, tied)).tensors.embedTokens.name,
    'lm_head.weight',
    'either name will do',
  );
  t.throws(() => readModel(small(t, { 'lm_head.weight': null })), { code: 'ERR_TENSOR', message: /lm_head.weight/ }, 'untied');
  t.equal(readModel(goldenPath('qwen2-bf16')).tensors.lmHead.name, 'model.embed_tokens.weight');
});

/** Every tensor of `smallLlama`, renamed, and others beside them. */
function renamed(t: Test, rename: (name: string) => string, others: readonly string[] = [], config: object = {}): string {
  const shapes = Object.entries(smallLlamaShapes()).map(([name, shape]): [string, number[]] => [rename(name), shape]);
  const header = headerOf(Object.fromEntries([...shapes, ...others.map((name): [string, number[]] => [name, [2, 3]])]));
  return writeFolder(t, { 'config.json': { ...smallLlama, ...config }, 'model.safetensors': safetensors(header) });
}

test('names of the base class, and heads that predict more tokens', async (t) => {
  const base = readModel(renamed(t, (name) => name.replace(/^model\./, '')));
  t.equal(base.tensors.norm.name, 'norm.weight');
  t.same(readModel(renamed(t, (name) => name, ['mtp.fc.weight', 'mtp.norm.weight'])).tensors.skipped, [{ prefix: 'mtp.', numTensors: 2 }]);
  t.throws(
    () => readModel(renamed(t, (name) => name, ['visual.patch_embed.weight'])),
    { code: 'ERR_TENSOR', message: /visual/ },
    'a text model',
  );
  t.throws(() => readModel(renamed(t, (name) => name.replace(/^model\.norm/, 'norm'))), {
    code: 'ERR_TENSOR',
    message: /"model.norm.weight"/,
  });
});

test('names of folders with a vision tower', async (t) => {
  const config = {
    architectures: ['Mistral3ForConditionalGeneration'],
    model_type: 'mistral3',
    head_dim: null,
    text_config: { ...smallLlama, model_type: 'mistral' },
  };
  const published = (name: string) => `language_model.${name}`;
  const saved = (name: string) => name.replace(/^model\./, 'model.language_model.');
  const tower = ['vision_tower.a', 'vision_tower.b', 'multi_modal_projector.c'];
  t.same(readModel(renamed(t, published, tower, config)).tensors.skipped, [
    { prefix: 'vision_tower.', numTensors: 2 },
    { prefix: 'multi_modal_projector.', numTensors: 1 },
  ]);
  t.equal(readModel(renamed(t, saved, ['model.vision_tower.a'], config)).tensors.norm.name, 'model.language_model.norm.weight');
  t.throws(() => readModel(renamed(t, published, ['audio_tower.a'], config)), { code: 'ERR_TENSOR', message: /audio_tower.a/ });
});
