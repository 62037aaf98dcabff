/** The tokenizer against the Rust library's ids and text, and invalid files. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { NdsError } from '../../../protocol/errors.ts';
import { missingTokenizerError, Tokenizer } from '../../../rank/text/tokenizer.ts';

const fixtures = join(import.meta.dirname, '../../fixtures/tokenizers');
const models = join(import.meta.dirname, '../../../examples/models');

interface Vectors {
  base: string;
  /** Replacements of top-level keys of the base's tokenizer.json. */
  changes: Record<string, unknown>;
  cases: { text: string; ids: number[]; ids_special: number[]; decoded: string; decoded_all?: string }[];
  decodes: { ids: number[]; text: string; text_all?: string }[];
}

/** A tokenizer.json, typed only where tests read it. */
type Json = Record<string, unknown> & { model?: unknown };

async function readJson<T>(...path: string[]): Promise<T> {
  return JSON.parse(await readFile(join(...path), 'utf8')) as T;
}

function readBase(name: string): Promise<Json> {
  return name === 'story' ? readJson(models, 'story-5m/tokenizer.json') : readJson(fixtures, `${name}.tokenizer.json`);
}

const names = [
  ...['llama2', 'llama2-added', 'llama2-metaspace', 'llama2-metaspace-split', 'llama3', 'qwen3'],
  ...['smollm2', 'smollm2-digit-runs', 'story', 'story-added', 'story-prefix'],
];

for (const name of names) {
  test(`${name}: token for token as the Rust library`, async (t) => {
    const { base, changes, cases, decodes } = await readJson<Vectors>(fixtures, `${name}.vectors.json`);
    const tokenizer = new Tokenizer({ ...(await readBase(base)), ...changes }, {}, name);
    const wrong: string[] = [];
    const check = (ids: number[], without: string, all = without) => {
      if (tokenizer.decode(ids) !== without) wrong.push(`text of ${ids}: ${JSON.stringify(tokenizer.decode(ids))}`);
      if (tokenizer.decode(ids, { skipSpecialTokens: false }) !== all) wrong.push(`whole text of ${ids}`);
    };
    for (const { text, ids, ids_special, decoded, decoded_all } of cases) {
      if (tokenizer.encode(text, { addSpecialTokens: false }).join() !== ids.join()) wrong.push(`ids of ${JSON.stringify(text)}`);
      if (tokenizer.encode(text).join() !== ids_special.join()) wrong.push(`ids with special tokens of ${JSON.stringify(text)}`);
      check(ids, decoded, decoded_all);
    }
    for (const { ids, text, text_all } of decodes) check(ids, text, text_all);
    t.ok(cases.length > 100);
    t.same(wrong, []);
  });
}

for (const name of ['story-5m', 'story-180k']) {
  test(`${name}: what Hugging Face transformers says of its prompts and continuations`, async (t) => {
    const tokenizer = await Tokenizer.load(join(models, name));
    t.ok(tokenizer);
    if (tokenizer === undefined) return;
    type Case = { prompt: string; prompt_token_ids: number[]; token_ids: number[]; text: string };
    const { cases } = await readJson<{ cases: Case[] }>(models, name, 'expected.json');
    for (const { prompt, prompt_token_ids, token_ids, text } of cases) {
      t.same(tokenizer.encode(prompt), prompt_token_ids);
      t.equal(tokenizer.decode(token_ids), text);
    }
    t.equal(tokenizer.eosTokenId, 0);
    t.equal(tokenizer.bosTokenId, undefined);
    t.same([...tokenizer.specialTokenIds], [0]);
    t.equal(tokenizer.vocabSize, 1268);
  });
}

test('a long prompt without a pre-tokenizer is cut only where no piece crosses', async (t) => {
  const base = await readBase('llama2');
  const model = base.model as { vocab: Record<string, number>; merges: [string, string][] };
  const crossing = { ...model, vocab: { ...model.vocab, 'b▁': 32000, 'b▁c': 32001 }, merges: [['b', '▁'], ['b▁', 'c'], ...model.merges] };
  const tokenizer = new Tokenizer({ ...base, model: crossing }, {}, 'crossing');
  t.ok(tokenizer.encode('ab cd').includes(32001), 'the merge across the space still happens');
});

test('text that is no Unicode is refused, with the place', (t) => {
  const tokenizer = new Tokenizer(tiny(), {}, 'tiny');
  for (const text of ['a\ud800', '\udc00a', 'ab\ud83dc']) {
    t.throws(() => tokenizer.encode(text), { name: 'NdsError', code: 'ERR_REQUEST', message: /lone surrogate U\+D8|lone surrogate U\+DC/ });
  }
  t.same(tokenizer.encode('a'), [0]);
  t.end();
});

test('prompts are capped by what could ever fit', (t) => {
  const tokenizer = new Tokenizer(tiny(), {}, 'tiny');
  const longest = '<|end|>'.length;
  t.ok(tokenizer.maxPromptChars(10) >= 10 * longest);
  t.ok(tokenizer.maxPromptChars(10) <= 10 * longest * 4);
  t.end();
});

test('a folder without tokenizer.json has no tokenizer, and the error for whoever needs one names it', async (t) => {
  const folder = t.testdir({});
  t.equal(await Tokenizer.load(folder), undefined);
  t.equal(await Tokenizer.load(join(folder, 'nowhere')), undefined);
  const error = missingTokenizerError(folder);
  t.equal(error.code, 'ERR_TOKENIZER');
  t.match(error.message, join(folder, 'tokenizer.json'));
});

/** A byte-level tokenizer of two letters and one special token, with some keys replaced. */
function tiny(changes: Json = {}, modelChanges: Json = {}): Json {
  return {
    added_tokens: [{ id: 3, content: '<|end|>', special: true }],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: [['a', 'b']], ...modelChanges },
    ...changes,
  };
}

const broken: Record<string, [text: string, message: RegExp]> = {
  'no JSON': ['{"model":', /Expected JSON/],
  'not an object': ['[]', /Expected an object as the file/],
  'no model': ['{}', /Expected an object as model .* but received nothing/],
  'another model type': [JSON.stringify(tiny({}, { type: 'Unigram' })), /model\.type BPE .* "Unigram"/],
  'a vocabulary of a wrong type': [JSON.stringify(tiny({}, { vocab: [] })), /an object as model\.vocab/],
  'an id that is no number': [JSON.stringify(tiny({}, { vocab: { a: '0' }, merges: [] })), /token "a" .* "0"/],
  'a negative id': [JSON.stringify(tiny({}, { vocab: { a: -1 }, merges: [] })), /token "a" .* -1/],
  'a gigantic id': [JSON.stringify(tiny({}, { vocab: { a: 2 ** 40 }, merges: [] })), /token "a" .* 1099511627776/],
  'no merges': [JSON.stringify(tiny({}, { merges: undefined })), /a list model\.merges/],
  'a merge of three': [JSON.stringify(tiny({}, { merges: ['a b c'] })), /two pieces .* "a b c"/],
  'a merge into nothing': [JSON.stringify(tiny({}, { merges: [['b', 'a']] })), /merges into pieces .* \["b","a"\]/],
  dropout: [JSON.stringify(tiny({}, { dropout: 0.1 })), /no model\.dropout .* 0\.1/],
  'a word suffix': [JSON.stringify(tiny({}, { end_of_word_suffix: '</w>' })), /end_of_word_suffix .* "<\/w>"/],
  'added tokens that are no list': [JSON.stringify(tiny({ added_tokens: {} })), /a list added_tokens/],
  'an added token without content': [JSON.stringify(tiny({ added_tokens: [{ id: 3 }] })), /content of an added token/],
  'an added token for whole words': [JSON.stringify(tiny({ added_tokens: [{ id: 3, content: 'x', single_word: true }] })), /single_word/],
  'another normalizer': [JSON.stringify(tiny({ normalizer: { type: 'Precompiled' } })), /a normalizer of NFC, .* "Precompiled"/],
  'another pre-tokenizer': [JSON.stringify(tiny({ pre_tokenizer: { type: 'Whitespace' } })), /pre_tokenizer Split, .* "Whitespace"/],
  'another split': [
    JSON.stringify(tiny({ pre_tokenizer: { type: 'Split', behavior: 'MergedWithNext', pattern: { String: ' ' } } })),
    /"MergedWithNext"/,
  ],
  'a split without a pattern': [JSON.stringify(tiny({ pre_tokenizer: { type: 'Split', behavior: 'Isolated' } })), /a pattern/],
  'a replacement of nothing known': [JSON.stringify(tiny({ normalizer: { type: 'Replace', pattern: {} } })), /\{ String \} or \{ Regex \}/],
  'a template without content': [JSON.stringify(tiny({ post_processor: { type: 'TemplateProcessing' } })), /a valid tokenizer/],
  'an impossible pattern': [
    JSON.stringify(tiny({ pre_tokenizer: { type: 'Split', behavior: 'Isolated', pattern: { Regex: '(' } } })),
    /a valid tokenizer/,
  ],
  'a sequence of nothing': [JSON.stringify(tiny({ pre_tokenizer: { type: 'Sequence' } })), /a list pretokenizers/],
  'another post-processor': [JSON.stringify(tiny({ post_processor: { type: 'BertProcessing' } })), /post_processor .* "BertProcessing"/],
  'no decoder': [JSON.stringify(tiny({ decoder: null })), /decoder ByteLevel/],
  'another decoder': [JSON.stringify(tiny({ decoder: { type: 'WordPiece' } })), /"WordPiece"/],
  'a strip at the end': [
    JSON.stringify(
      tiny({ decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'Strip', content: ' ', start: 0, stop: 1 }] } }),
    ),
    /Strip/,
  ],
};

test('a broken or unsupported tokenizer.json is refused by name', async (t) => {
  for (const [what, [text, message]] of Object.entries(broken)) {
    const folder = join(t.testdirName, what.replaceAll(' ', '-'));
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'tokenizer.json'), text);
    const prepared = Tokenizer.load(folder).then((tokenizer) => tokenizer?.prepare());
    const error = await prepared.catch((reason: unknown) => reason);
    t.type(error, NdsError, what);
    t.match(error, { code: 'ERR_TOKENIZER', exitCode: 65, message }, what);
    t.match((error as Error).message, join(folder, 'tokenizer.json'), `${what}: names the file`);
  }
});

test('tokenizer_config.json may name tokens as objects, and must have the right types', async (t) => {
  const folder = t.testdir({
    'tokenizer.json': JSON.stringify(tiny()),
    'tokenizer_config.json': '{"eos_token":{"content":"<|end|>"},"bos_token":"b"}',
  });
  const tokenizer = await Tokenizer.load(folder);
  t.equal(tokenizer?.eosTokenId, 3);
  t.equal(tokenizer?.bosTokenId, 1);
  t.same(tokenizer?.specialTokens, { bos_token: 'b', eos_token: '<|end|>' });
  await writeFile(join(folder, 'special_tokens_map.json'), '{"eos_token":"a","bos_token":null}');
  await writeFile(join(folder, 'added_tokens.json'), '{"<|more|>":4}');
  await writeFile(join(folder, 'config.json'), '{"tokenizer_class":"GPT2Tokenizer"}');
  const merged = await Tokenizer.load(folder);
  t.same(merged?.specialTokens, { eos_token: 'a', unk_token: '<|endoftext|>' }, 'special_tokens_map.json wins');
  t.same(merged?.encode('<|more|>'), [4], 'added_tokens.json counts');
  for (const name of ['special_tokens_map.json', 'added_tokens.json', 'config.json']) await rm(join(folder, name));
  await writeFile(join(folder, 'tokenizer_config.json'), '[]');
  await t.rejects(Tokenizer.load(folder), { code: 'ERR_TOKENIZER', message: /tokenizer_config\.json/ });
  await writeFile(join(folder, 'tokenizer_config.json'), '{"eos_token":7}');
  await t.rejects(Tokenizer.load(folder), { code: 'ERR_TOKENIZER', message: /eos_token .* 7/ });
});
