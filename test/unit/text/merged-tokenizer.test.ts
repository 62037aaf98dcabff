/** A tokenizer from all files of a folder, against Hugging Face transformers' AutoTokenizer. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { NdsError } from '../../../protocol/errors.ts';
import { Tokenizer } from '../../../rank/text/tokenizer.ts';
import type { TokenizerFiles } from '../../../rank/text/tokenizer-files.ts';

type Json = Record<string, unknown>;

interface Result {
  /** Transformers' refusal; the rest is absent then. */
  error?: string;
  special: Record<string, string>;
  hidden: number[];
  size: number;
  ids: number[];
  text: string;
  text_all: string;
}

interface Family {
  base: string;
  json: Json;
  config: Json;
  model: Json;
}

interface Patch {
  json?: Json;
  config?: Json;
  map?: Json;
  added?: Json;
}

interface Vectors {
  probe: string;
  bases: Record<string, Json | null>;
  families: Record<string, Family>;
  patches: Record<string, Patch>;
  results: Result[];
  classes: [modelType: string, name: string | null, result: number][];
  random: [family: string, patch: Patch, result: number][];
  /** By family. */
  cases: [patches: number[], result: number][][];
}

async function readJson<T>(...path: string[]): Promise<T> {
  return JSON.parse(await readFile(join(import.meta.dirname, '../..', ...path), 'utf8')) as T;
}

const vectors = await readJson<Vectors>('fixtures/tokenizers/merged.vectors.json');
const story = await readJson<Json>('../examples/models/story-180k/tokenizer.json');

/** What a tokenizer of ours is, in the form of the vectors. */
function describe(tokenizer: Tokenizer): Result {
  const ids = tokenizer.encode(vectors.probe);
  const [text, all] = [tokenizer.decode(ids), tokenizer.decode(ids, { skipSpecialTokens: false })];
  const hidden = [...tokenizer.specialTokenIds].sort((a, b) => a - b);
  return { special: { ...tokenizer.specialTokens }, hidden, size: tokenizer.vocabSize, ids, text, text_all: all };
}

/** The fields that differ; none for the same tokenizer or a refusal by both. */
function differences(make: () => Tokenizer, expected: Result): string[] {
  let received: Result;
  try {
    received = describe(make());
  } catch (error) {
    if (!(error instanceof NdsError) || error.code !== 'ERR_TOKENIZER') throw error;
    return expected.error === undefined ? [error.message] : [];
  }
  if (expected.error !== undefined) return ['not refused'];
  const keys = Object.keys(received) as (keyof Result)[];
  const sorted = (value: unknown) =>
    JSON.stringify(value === received.special || value === expected.special ? Object.entries(value as object).sort() : value);
  return keys.flatMap((key) => {
    const [a, b] = [sorted(received[key]), sorted(expected[key])];
    return a === b ? [] : [`${key}: ${a} instead of ${b}`];
  });
}

/** The tokenizer of a family's files with those of patches on top, key by key. */
function patched(name: string, patches: readonly Patch[]): Tokenizer {
  const family = vectors.families[name] as Family;
  const over = (part: keyof Patch, start: Json | null) =>
    patches.some((patch) => patch[part] !== undefined) ? (Object.assign({}, start, ...patches.map((patch) => patch[part])) as Json) : start;
  const files = {
    config: over('config', family.config) as Json,
    specialTokensMap: over('map', null),
    addedTokens: over('added', null),
    modelConfig: family.model,
  };
  return new Tokenizer(over('json', { ...(vectors.bases[family.base] ?? story), ...family.json }), files, name);
}

for (const [i, name] of Object.keys(vectors.families).entries()) {
  test(`${name}: every file alone and in pairs as transformers merges them`, (t) => {
    const patches = Object.entries(vectors.patches);
    const wrong: string[] = [];
    for (const [numbers, result] of vectors.cases[i] ?? []) {
      const chosen = numbers.map((number) => patches[number] as (typeof patches)[number]);
      const make = () =>
        patched(
          name,
          chosen.map(([, patch]) => patch),
        );
      const found = differences(make, vectors.results[result] as Result);
      if (found.length > 0) wrong.push([chosen.map(([what]) => what).join(' + '), ...found].join('\n  '));
    }
    t.ok((vectors.cases[i]?.length ?? 0) > 200);
    t.same(wrong.slice(0, 5), [], `${wrong.length} differ`);
    t.end();
  });
}

test('random values in every file', (t) => {
  const wrong = vectors.random.flatMap(([name, patch, result]) => {
    const found = differences(() => patched(name, [patch]), vectors.results[result] as Result);
    return found.length === 0 ? [] : [[name, JSON.stringify(patch), ...found].join('\n  ')];
  });
  t.ok(vectors.random.length > 200);
  t.same(wrong.slice(0, 5), [], `${wrong.length} differ`);
  t.end();
});

/** Classes of transformers that a text model of the supported families has no use for. */
const refused = ['CohereTokenizer', 'GemmaTokenizerFast', 'T5Tokenizer'];

test('the class is the one that AutoTokenizer chooses for a model type and a name', (t) => {
  for (const [modelType, name, result] of vectors.classes) {
    const files = { config: name === null ? {} : { tokenizer_class: name }, modelConfig: { model_type: modelType } };
    const make = () => new Tokenizer(story, files, 'folder');
    const isTrusted = modelType === 'llama' || modelType === 'qwen3';
    if (isTrusted && refused.includes(name ?? '')) {
      t.throws(make, { code: 'ERR_TOKENIZER', message: new RegExp(`tokenizer_class of .* "${name?.replace('Fast', '')}"`) });
    } else {
      t.same(differences(make, vectors.results[result] as Result), [], `${modelType} ${name}`);
    }
  }
  t.end();
});

test('a folder of a model that names a class which is not its own has tokenizer.json as it is', (t) => {
  const config = { tokenizer_class: 'LlamaTokenizerFast' };
  const pieces = (folder: string) => new Tokenizer(story, { config, modelConfig: { model_type: 'llama' }, folder }, 'file').vocabSize;
  t.equal(pieces('/models/other'), 1271, 'with <s>, </s> and <unk>');
  for (const name of ['DeepSeek-R1-Distill-Llama-8B', 'models--deepseek-ai--deepseek-coder-1.3b-base/snapshots/0f1e']) {
    t.equal(pieces(`/models/${name}`), 1268, name);
  }
  t.end();
});

const wrongFiles: Record<string, [files: Partial<TokenizerFiles>, message: RegExp]> = {
  'a token that is a number': [{ config: { pad_token: 7 } }, /a token as pad_token for the tokenizer files of folder but received 7/],
  'a token without content': [{ specialTokensMap: { eos_token: { lstrip: true } } }, /a token as eos_token/],
  'a token for whole words': [{ specialTokensMap: { eos_token: { content: 'x', single_word: true } } }, /without single_word as eos_token/],
  'extra tokens that are no list': [{ config: { additional_special_tokens: 'x' } }, /a list or an object as extra_special_tokens/],
  'an extra token that is a number': [{ specialTokensMap: { additional_special_tokens: [1] } }, /a token as additional_special_tokens/],
  'listed tokens that are no object': [{ config: { added_tokens_decoder: [] } }, /an object as added_tokens_decoder/],
  'a listed token under no id': [{ config: { added_tokens_decoder: { a: { content: 'x' } } } }, /ids as keys as added_tokens_decoder/],
  'an added token without an id': [{ addedTokens: { x: 'y' } }, /an id as x in added_tokens\.json .* "y"/],
  'names that are no object': [{ config: { model_specific_special_tokens: ['x'] } }, /an object as model_specific_special_tokens/],
  'tokenizer.json by another name': [{ config: { fast_tokenizer_files: ['tokenizer.4.json'] } }, /no fast_tokenizer_files/],
  'spaces to clean up': [
    {
      config: {
        clean_up_tokenization_spaces: true,
        clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output: true,
      },
    },
    /no clean_up_tokenization_spaces_for_bpe/,
  ],
};

test('what the files beside tokenizer.json must not say is refused by name', (t) => {
  for (const [what, [files, message]] of Object.entries(wrongFiles)) {
    t.throws(
      () => new Tokenizer(story, { folder: 'folder', ...files }, 'file'),
      { name: 'NdsError', code: 'ERR_TOKENIZER', message },
      what,
    );
  }
  const large = {
    ...story,
    model: { type: 'BPE', merges: [], vocab: Object.fromEntries(Array.from({ length: 100_001 }, (_, i) => [`${i}`, i])) },
  };
  t.throws(() => new Tokenizer(large, { config: { fix_mistral_regex: true } }, 'file'), {
    code: 'ERR_TOKENIZER',
    message: /fix_mistral_regex/,
  });
  t.end();
});
