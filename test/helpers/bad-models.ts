/** Model folders with one defect each, and what the error of a reader must name. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NdsErrorCode } from '../../protocol/errors.ts';
import {
  copyGoodModel,
  editJson,
  editTensor,
  type Header,
  readWeights,
  renameTensor,
  shardWeights,
  writeWeights,
} from './checkpoint-edits.ts';

/** One defect of an otherwise good folder. */
export interface BadModel {
  readonly name: string;
  readonly code: NdsErrorCode;
  /** Matches the error's message: it names the wrong tensor, key or file. */
  readonly names: RegExp;
  readonly spoil: (folder: string) => void;
}

/** Writes a bad model to `folder`. */
export function writeBadModel({ spoil }: BadModel, folder: string): void {
  copyGoodModel(folder);
  spoil(folder);
}

const weights = 'model.safetensors';
const norm = 'model.norm.weight';
const firstNorm = 'model.layers.0.input_layernorm.weight';

function bad(name: string, code: NdsErrorCode, names: RegExp, spoil: (folder: string) => void): BadModel {
  return { name, code, names, spoil };
}

const remove = (file: string) => (folder: string) => rmSync(join(folder, file));
const replace = (file: string, content: string | Uint8Array) => (folder: string) => writeFileSync(join(folder, file), content);

const folders = [
  bad('no config.json', 'ERR_MODEL_NOT_FOUND', /config\.json/, remove('config.json')),
  bad('no weights', 'ERR_MODEL_NOT_FOUND', /model\.safetensors/, remove(weights)),
  bad('a folder where config.json should be', 'ERR_CONFIG', /config\.json/, (folder) => {
    rmSync(join(folder, 'config.json'));
    mkdirSync(join(folder, 'config.json'));
  }),
];

/** Safetensors files whose header is wrong about the file itself. */
const safetensors = [
  bad('an empty file', 'ERR_CHECKPOINT', /model\.safetensors.* 0/, replace(weights, '')),
  bad('a file of seven bytes', 'ERR_CHECKPOINT', /model\.safetensors.* 7/, replace(weights, 'sevenbs')),
  bad('a truncated header', 'ERR_CHECKPOINT', /model\.safetensors/, (folder) => truncateSync(join(folder, weights), 100)),
  bad('truncated data', 'ERR_CHECKPOINT', /348672 bytes .*model\.safetensors.* 348671/, (folder) =>
    truncateSync(join(folder, weights), 350_023),
  ),
  bad('bytes after the data', 'ERR_CHECKPOINT', /model\.safetensors.* 348673/, (folder) => {
    writeWeights(folder, { data: Buffer.concat([readWeights(folder).data, Buffer.from([0])]) });
  }),
  bad('a header length past the file', 'ERR_CHECKPOINT', /header .*1000000\b/, (folder) =>
    writeWeights(folder, { headerLength: 1_000_000n }),
  ),
  bad('a header length of 2^63', 'ERR_CHECKPOINT', /header .*922337203685477/, (folder) =>
    writeWeights(folder, { headerLength: 2n ** 63n }),
  ),
  bad('a header that is no JSON', 'ERR_CHECKPOINT', /JSON .*model\.safetensors/, (folder) => writeWeights(folder, { header: '{"a":' })),
  bad('a header that is a list', 'ERR_CHECKPOINT', /object .*model\.safetensors/, (folder) => writeWeights(folder, { header: '[]' })),
  bad(
    'a header that is no UTF-8',
    'ERR_CHECKPOINT',
    /UTF-8 .*model\.safetensors/,
    replace(weights, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff)),
  ),
  bad('a name twice', 'ERR_CHECKPOINT', /"model\.norm\.weight" twice/, (folder) => {
    const { header } = readWeights(folder);
    const text = JSON.stringify(header);
    writeWeights(folder, { header: `${text.slice(0, -1)},"${norm}":${JSON.stringify(header[norm])}}` });
  }),
  bad('overlapping tensors', 'ERR_CHECKPOINT', /overlap/, (folder) => editTensor(folder, norm, { data_offsets: [348542, 348670] })),
  bad('a gap between tensors', 'ERR_CHECKPOINT', /tensor "model\.layers\.0\.mlp\.down_proj\.weight".*gap/, (folder) =>
    editTensor(folder, firstNorm, null),
  ),
  bad('fewer bytes than the shape needs', 'ERR_CHECKPOINT', /128 bytes for tensor "model\.norm\.weight"/, (folder) => {
    editTensor(folder, norm, { data_offsets: [348544, 348670] });
  }),
  bad('offsets backwards', 'ERR_CHECKPOINT', /"model\.norm\.weight"/, (folder) =>
    editTensor(folder, norm, { data_offsets: [348672, 348544] }),
  ),
  bad('a negative offset', 'ERR_CHECKPOINT', /"model\.norm\.weight".*-128/, (folder) =>
    editTensor(folder, norm, { data_offsets: [-128, 0] }),
  ),
  bad('three offsets', 'ERR_CHECKPOINT', /"model\.norm\.weight"/, (folder) =>
    editTensor(folder, norm, { data_offsets: [348544, 348672, 0] }),
  ),
  bad('a fractional size', 'ERR_CHECKPOINT', /"model\.norm\.weight".*64\.5/, (folder) => editTensor(folder, norm, { shape: [64.5] })),
  bad('sizes that overflow', 'ERR_CHECKPOINT', /"model\.norm\.weight"/, (folder) =>
    editTensor(folder, norm, { shape: [2 ** 32, 2 ** 32] }),
  ),
  bad('a type that does not exist', 'ERR_CHECKPOINT', /"model\.norm\.weight".*"F17"/, (folder) =>
    editTensor(folder, norm, { dtype: 'F17' }),
  ),
  bad('another type than the bytes', 'ERR_CHECKPOINT', /256 bytes for tensor "model\.norm\.weight"/, (folder) =>
    editTensor(folder, norm, { dtype: 'F32' }),
  ),
];

/** Consistent safetensors files that do not fit the model. */
const tensors = [
  bad('a missing tensor', 'ERR_TENSOR', /"model\.norm\.weight"/, (folder) =>
    renameTensor(folder, norm, 'model.layers.0.rotary_emb.inv_freq'),
  ),
  bad('an unknown tensor', 'ERR_TENSOR', /"model\.extra\.weight"/, (folder) => {
    const { header, data } = readWeights(folder);
    const extra = { dtype: 'BF16', shape: [1], data_offsets: [data.length, data.length + 2] };
    writeWeights(folder, { header: { ...header, 'model.extra.weight': extra }, data: Buffer.concat([data, Buffer.alloc(2)]) });
  }),
  bad('a misshapen tensor', 'ERR_TENSOR', /\[64\] .*"model\.norm\.weight".*\[32,2\]/, (folder) =>
    editTensor(folder, norm, { shape: [32, 2] }),
  ),
  bad('a tensor of integers', 'ERR_TENSOR', /"model\.norm\.weight".*I16/, (folder) => editTensor(folder, norm, { dtype: 'I16' })),
  bad('100 000 entries', 'ERR_TENSOR', /"model\.embed_tokens\.weight"/, (folder) => {
    const header: Header = {};
    for (let i = 0; i < 100_000; i++) header[`t${i}`] = { dtype: 'U8', shape: [1], data_offsets: [i, i + 1] };
    writeWeights(folder, { header, data: Buffer.alloc(100_000) });
  }),
  bad('100 000 entries in one place', 'ERR_CHECKPOINT', /overlap/, (folder) => {
    const header: Header = {};
    for (let i = 0; i < 100_000; i++) header[`t${i}`] = { dtype: 'U8', shape: [1], data_offsets: [0, 1] };
    writeWeights(folder, { header, data: Buffer.alloc(1) });
  }),
];

const shards = [
  bad('a tensor in two shards', 'ERR_TENSOR', /"model\.norm\.weight".*model-0000[12]/, (folder) =>
    shardWeights(folder, (map) => map, norm),
  ),
  bad('a shard that is not there', 'ERR_CHECKPOINT', /model-00002-of-00002\.safetensors/, (folder) => {
    shardWeights(folder, (map) => map);
    rmSync(join(folder, 'model-00002-of-00002.safetensors'));
  }),
  bad('an index that names the wrong shard', 'ERR_TENSOR', /"model\.norm\.weight"/, (folder) => {
    shardWeights(folder, (map) => ({ ...map, [norm]: 'model-00001-of-00002.safetensors' }));
  }),
  bad('an index without a tensor of a shard', 'ERR_TENSOR', /"model\.norm\.weight"/, (folder) =>
    shardWeights(folder, ({ [norm]: _, ...map }) => map),
  ),
  bad('an index with a tensor of no shard', 'ERR_TENSOR', /"extra"/, (folder) => {
    shardWeights(folder, (map) => ({ ...map, extra: 'model-00001-of-00002.safetensors' }));
  }),
  bad('an index that leads out of the folder', 'ERR_CHECKPOINT', /"\.\.\/model\.safetensors"/, (folder) => {
    shardWeights(folder, (map) => ({ ...map, [norm]: '../model.safetensors' }));
  }),
  bad('an index without a map', 'ERR_CHECKPOINT', /weight_map .*index\.json/, (folder) => shardWeights(folder, () => [])),
];

/** Keys without a default, and values of a wrong type or range for them. */
const neededKeys = { hidden_size: '64', intermediate_size: 1.5, num_attention_heads: 0, num_hidden_layers: null, vocab_size: -1 };

const configs = [
  bad('a config.json that is no JSON', 'ERR_CONFIG', /config\.json/, replace('config.json', '{"hidden_size": 64')),
  bad('a config.json that is a list', 'ERR_CONFIG', /object .*config\.json/, replace('config.json', '[]')),
  bad('a config.json that is no UTF-8', 'ERR_CONFIG', /UTF-8 .*config\.json/, replace('config.json', Uint8Array.of(0x7b, 0xff, 0x7d))),
  ...['architectures', ...Object.keys(neededKeys)].map((key) =>
    bad(`no ${key}`, 'ERR_CONFIG', new RegExp(`${key} in .*config\\.json`), (folder) =>
      editJson(folder, 'config.json', { [key]: undefined }),
    ),
  ),
  ...Object.entries({
    ...neededKeys,
    architectures: 'Qwen3ForCausalLM',
    head_dim: 31,
    num_key_value_heads: 3,
    tie_word_embeddings: 'yes',
  }).map(([key, value]) => configEdit(key, value, 'ERR_CONFIG')),
  ...Object.entries({ architectures: ['GPT2LMHeadModel'], hidden_act: 'gelu', quantization_config: { bits: 4 }, head_dim: 1024 }).map(
    ([key, value]) => configEdit(key, value, 'ERR_UNSUPPORTED'),
  ),
  bad('an unknown rope type', 'ERR_UNSUPPORTED', /rope_type .*config\.json.*"spiral"/, (folder) => {
    editJson(folder, 'config.json', { rope_parameters: { rope_theta: 10_000, rope_type: 'spiral' } });
  }),
  bad('sizes of another model', 'ERR_TENSOR', /"model\.embed_tokens\.weight"/, (folder) =>
    editJson(folder, 'config.json', { hidden_size: 128 }),
  ),
  bad('more layers than the weights', 'ERR_TENSOR', /"model\.layers\.1\./, (folder) => {
    editJson(folder, 'config.json', { num_hidden_layers: 2, layer_types: ['full_attention', 'full_attention'] });
  }),
  bad('an end-of-sequence token that is no id', 'ERR_CONFIG', /eos_token_id .*generation_config\.json.*"2"/, (folder) => {
    editJson(folder, 'generation_config.json', { eos_token_id: '2' });
  }),
];

function configEdit(key: string, value: unknown, code: NdsErrorCode): BadModel {
  return bad(`${key}: ${JSON.stringify(value)}`, code, new RegExp(`${key}`), (folder) => editJson(folder, 'config.json', { [key]: value }));
}

/** Every bad checkpoint of the tests. */
export const badModels: readonly BadModel[] = [...folders, ...safetensors, ...tensors, ...shards, ...configs];
