/**
 * Checks a tokenizer.json and rewrites what `@huggingface/tokenizers` would interpret differently from the Rust
 * library.
 */
import { isObject } from '../../protocol/checks.ts';
import { describeJson, type NdsError, unexpected } from '../../protocol/errors.ts';
import type { AddedToken } from './added-tokens.ts';
import type { BpeModel } from './bpe.ts';
import type { Components } from './tokenizer-class.ts';
import { fenceLateMarks } from './unicode-normalization.ts';

type Json = Readonly<Record<string, unknown>>;

/** The top-level keys of tokenizer.json that are read here. */
type TopKey = 'added_tokens' | 'decoder' | 'model' | 'normalizer' | 'padding' | 'post_processor' | 'pre_tokenizer';

type ModelKey = 'type' | 'vocab' | 'merges' | 'dropout' | 'continuing_subword_prefix' | 'end_of_word_suffix';

/** The keys of a normalizer or pre-tokenizer. */
type StepKey =
  | ('type' | 'pattern' | 'content' | 'behavior' | 'invert' | 'normalizers' | 'pretokenizers')
  | ('use_regex' | 'add_prefix_space' | 'replacement' | 'prepend_scheme' | 'split' | 'individual_digits');

/** An object whose fields are unchecked. */
type Unchecked<Key extends string> = { readonly [K in Key]?: unknown };

type Step = Unchecked<StepKey>;

/** A tokenizer.json of checked shape; its other keys are unchecked. */
export interface TokenizerJson extends Unchecked<TopKey> {
  readonly model: BpeModel;
}

/** The result of `fixTokenizerJson`. */
export interface FixedTokenizer {
  readonly json: TokenizerJson;
  /** The piece of each id of the model, sparse where ids are skipped. */
  readonly pieces: (string | undefined)[];
}

/** Max token id: bounds the tables that are indexed by id, whatever a file says. */
const maxTokenId = 2 ** 22;

/** GPT-2's pattern, which `ByteLevel` applies with `use_regex`; in the Oniguruma dialect, whose `\s` is White_Space. */
const gpt2Pattern = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

function refuse(file: string, expected: string, received: unknown): NdsError {
  return unexpected('ERR_TOKENIZER', expected, file, received, describeJson);
}

function asObject<Key extends string>(value: unknown, what: string, file: string): Unchecked<Key> {
  if (!isObject(value)) throw refuse(file, `an object as ${what}`, value);
  return value as Unchecked<Key>;
}

/** The flattened members of a `Sequence`, or the single step itself; none for null. */
function flatten(value: unknown, membersKey: 'normalizers' | 'pretokenizers', what: TopKey, file: string): Step[] {
  if (value === null || value === undefined) return [];
  const entry = asObject<StepKey>(value, what, file);
  if (entry.type !== 'Sequence') return [entry];
  const members = entry[membersKey];
  if (!Array.isArray(members)) throw refuse(file, `a list ${membersKey} in ${what}`, members);
  return members.flatMap((member) => flatten(member, membersKey, what, file));
}

/** Refuses a step without a pattern, for which the package would only warn. */
function checkPattern(step: Step, file: string): void {
  const { String: text, Regex: regex } = asObject<'String' | 'Regex'>(step.pattern, 'a pattern', file);
  if (typeof (text ?? regex) !== 'string') throw refuse(file, 'a pattern { String } or { Regex }', step.pattern);
}

function split(regex: string): Step {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false };
}

/** A Split that keeps all matches and gaps, or with `invert` and `Removed` the matches alone. */
function fixSplit(step: Step, file: string): Step {
  const { behavior, invert = false } = step;
  checkPattern(step, file);
  if (behavior === 'Isolated') return { ...step, invert: false };
  if (behavior === 'Removed' && invert === true) return step;
  throw refuse(file, 'a Split pre-tokenizer with behavior Isolated, or inverted with Removed', { behavior, invert });
}

/**
 * `ByteLevel` as a split and an encoding: the package's own pattern uses JavaScript's `\s`, which has U+FEFF and lacks
 * U+0085.
 */
function fixByteLevel(step: Step): Step[] {
  if (step.use_regex === false) return [step];
  const prefix = { type: 'Replace', pattern: { Regex: String.raw`\A[^ ]` }, content: ' $&' };
  const plain = { ...step, use_regex: false, add_prefix_space: false };
  return [...(step.add_prefix_space === true ? [prefix] : []), split(gpt2Pattern), plain];
}

/** `Metaspace` splits before every replacement character by default; the package never does. */
function fixMetaspace(step: Step, file: string): Step[] {
  const { replacement = '▁', add_prefix_space, prepend_scheme = add_prefix_space === false ? 'never' : 'always' } = step;
  if (replacement !== '▁') throw refuse(file, 'the replacement "▁" in a Metaspace pre-tokenizer', replacement);
  const plain = { type: 'Metaspace', replacement, prepend_scheme };
  return step.split === false ? [plain] : [plain, split('▁?[^▁]+|▁')];
}

function fixPreTokenizers(json: Unchecked<TopKey>, model: BpeModel, file: string): Step | null {
  const given = flatten(json.pre_tokenizer, 'pretokenizers', 'pre_tokenizer', file);
  const steps = given.flatMap((step): Step[] => {
    switch (step.type) {
      case 'Split':
        return [fixSplit(step, file)];
      case 'ByteLevel':
        return fixByteLevel(step);
      case 'Metaspace':
        return fixMetaspace(step, file);
      case 'Digits':
        // Rust's is_numeric is all of category N; JavaScript's \d is ASCII only.
        return [split(step.individual_digits === true ? String.raw`\p{N}` : String.raw`\p{N}+`)];
      default:
        throw refuse(file, 'pre_tokenizer Split, ByteLevel, Metaspace or Digits', step.type);
    }
  });
  // Without a split, a whole prompt is one word. If no piece has "▁" after another character, no merge can cross a cut
  // before "▁": the cut changes no token, and a long prompt takes a twentieth of the time.
  const unsplit = steps.every((step) => step.type === 'Metaspace');
  if (unsplit && !Object.keys(model.vocab).some((piece) => /[^▁]▁/.test(piece))) steps.push(split('▁*[^▁]+|▁+'));
  return steps.length === 0 ? null : { type: 'Sequence', pretokenizers: steps };
}

function fixNormalizers(json: Unchecked<TopKey>, file: string): Step | null {
  const supported = ['NFC', 'NFD', 'NFKC', 'NFKD', 'Prepend', 'Replace'];
  const normalizers = flatten(json.normalizer, 'normalizers', 'normalizer', file).flatMap((step): Step | Step[] => {
    if (!supported.includes(step.type as string)) throw refuse(file, `a normalizer of ${supported.join(', ')}`, step.type);
    if (step.type === 'Replace') checkPattern(step, file);
    if (/^NFK?[CD]$/.test(step.type as string)) return [fenceLateMarks.before, step, fenceLateMarks.after];
    // The package passes `content` to String.replaceAll, which interprets "$".
    return typeof step.content === 'string' ? { ...step, content: step.content.replaceAll('$', '$$$$') } : step;
  });
  return normalizers.length === 0 ? null : { type: 'Sequence', normalizers };
}

function checkId(id: unknown, piece: string, file: string): number {
  if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= maxTokenId) {
    throw refuse(file, `an id in [0, ${maxTokenId}) of token ${JSON.stringify(piece)}`, id);
  }
  return id;
}

/** The piece of each id of the model; sparse where ids are skipped. */
function listPieces(vocab: Json, file: string): (string | undefined)[] {
  const pieces: (string | undefined)[] = [];
  for (const piece in vocab) pieces[checkId(vocab[piece], piece, file)] = piece;
  return pieces;
}

/** Checks that every merge makes a piece of the vocabulary. One whose halves are none can never apply. */
function checkMerges(merges: unknown, vocab: Json, file: string): void {
  if (!Array.isArray(merges)) throw refuse(file, 'a list model.merges', merges);
  for (const merge of merges as unknown[]) {
    const pair: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== 'string' || typeof pair[1] !== 'string') {
      throw refuse(file, 'two pieces in each of model.merges', merge);
    }
    if (!Object.hasOwn(vocab, pair[0] + pair[1])) throw refuse(file, 'merges into pieces of model.vocab', merge);
  }
}

function checkModel(json: Unchecked<TopKey>, file: string): BpeModel {
  const model = asObject<ModelKey>(json.model, 'model', file);
  const { type = 'BPE', dropout, continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = model;
  if (type !== 'BPE') throw refuse(file, 'model.type BPE', type);
  if (dropout) throw refuse(file, 'no model.dropout', dropout);
  if (prefix || suffix) throw refuse(file, 'no continuing_subword_prefix or end_of_word_suffix', prefix || suffix);
  const vocab = asObject<string>(model.vocab, 'model.vocab', file);
  checkMerges(model.merges, vocab, file);
  return model as unknown as BpeModel;
}

/**
 * `added_tokens` of a parsed tokenizer.json.
 * @throws NdsError ERR_TOKENIZER for one of another shape.
 */
export function checkAddedTokens(value: unknown, file: string): AddedToken[] {
  const { added_tokens: tokens = [] } = asObject<TopKey>(value, 'the file', file);
  if (!Array.isArray(tokens)) throw refuse(file, 'a list added_tokens', tokens);
  return tokens.map((item: unknown) => {
    const token = asObject<keyof AddedToken | 'single_word'>(item, 'a member of added_tokens', file);
    const { content, single_word: singleWord, id, special = false, normalized = special !== true, lstrip, rstrip } = token;
    if (typeof content !== 'string' || content === '') throw refuse(file, 'a non-empty content of an added token', content);
    if (singleWord) throw refuse(file, `added token ${JSON.stringify(content)} without single_word`, singleWord);
    const flags = { special: special === true, normalized: normalized === true, lstrip: lstrip === true, rstrip: rstrip === true };
    return { id: checkId(id, content, file), content, ...flags };
  });
}

/**
 * Checks a tokenizer.json and rewrites its normalizers and pre-tokenizers for `@huggingface/tokenizers` so that they do
 * what the Rust library's do. `truncation` and `padding` are ignored, as in Hugging Face transformers.
 *
 * @param value - the parsed tokenizer.json; not changed
 * @param components - replace its own, where the tokenizer's class has some
 * @param file - its path, named in errors
 * @throws NdsError ERR_TOKENIZER for a file of another shape, or with a component that would be interpreted differently
 */
export function fixTokenizerJson(value: unknown, components: Components | null, file: string): FixedTokenizer {
  const given = asObject<TopKey>(value, 'the file', file);
  const { vocab, merges, ...others } = checkModel(given, file);
  const model = { vocab, merges, ...(components === null ? others : components.model) };
  const json = { ...given, ...components };
  const pieces = listPieces(model.vocab, file);
  const fixed = {
    ...json,
    model,
    normalizer: fixNormalizers(json, file),
    pre_tokenizer: fixPreTokenizers(json, model, file),
    decoder: json.decoder ?? null,
  };
  return { json: fixed, pieces };
}
