/** Merges tokenizer.json with the files beside it into one tokenizer, as Hugging Face transformers 5 does. */
import { type NdsError, unexpected } from '../../protocol/errors.ts';
import type { TokenSpec } from './added-tokens.ts';
import { AddedVocabulary } from './added-vocabulary.ts';
import { type AroundText, readPostProcessor } from './post-processor.ts';
import { contentOf, SpecialTokenReader, type SpecialTokens, specialToken } from './special-tokens.ts';
import { chooseTokenizerClass, type TokenizerClass } from './tokenizer-class.ts';
import type { JsonObject, TokenizerFiles } from './tokenizer-files.ts';
import { checkAddedTokens, type FixedTokenizer, fixTokenizerJson, type TokenizerJson } from './tokenizer-json.ts';

/** One tokenizer from all files. */
export interface MergedTokenizer {
  readonly fixed: FixedTokenizer;
  readonly normalize: (text: string) => string;
  readonly vocabulary: AddedVocabulary;
  /** Special tokens by name. */
  readonly specialTokens: Readonly<Record<string, string>>;
  readonly around: AroundText;
  /** Whether special tokens in a text are tokenized as text. */
  readonly splitsSpecial: boolean;
}

/** Vocabulary from which transformers replaces the pre-tokenizer of a folder with `fix_mistral_regex`. */
const minPatchedVocab = 100_000;

/** Settings that would change text or tokens in a way that is not supported. */
function checkSettings(settings: JsonObject, numPieces: number, folder: string): void {
  const refuse = (key: string): NdsError => unexpected('ERR_TOKENIZER', `no ${key}`, `the tokenizer files of ${folder}`, settings[key]);
  if (settings['fix_mistral_regex'] === true && numPieces > minPatchedVocab) throw refuse('fix_mistral_regex');
  const cleanUp = 'clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output';
  if (settings['clean_up_tokenization_spaces'] === true && settings[cleanUp] === true) throw refuse(cleanUp);
  const files = settings['fast_tokenizer_files'];
  if (Array.isArray(files) && files.some((name) => name !== 'tokenizer.json')) throw refuse('fast_tokenizer_files but tokenizer.json');
}

/** Tokens to add to what tokenizer.json has: the listed ones, then special tokens that are in neither. */
function tokensToAdd({ named, extra, listed }: SpecialTokens, present: ReadonlySet<string>): TokenSpec[] {
  const names = new Set([...named.values()].map(contentOf));
  const known = new Set([...present, ...listed.map(({ content }) => content)]);
  // The same text with other flags is added once more, and the last flags count.
  const all = [...new Map([...named.values(), ...extra].map((token) => [JSON.stringify(token), token] as const)).values()];
  const missing = all.filter((token) => !known.has(contentOf(token)));
  const tokens = [...listed, ...missing.map((token) => (typeof token === 'string' ? specialToken(token) : token))];
  return tokens.map((token) => ({ ...token, special: token.special || names.has(token.content) }));
}

/** Ids around a text: tokenizer.json's, or `bos_token` and `eos_token` where a class or setting asks for them. */
function readAround(
  json: TokenizerJson,
  { addsBos }: TokenizerClass,
  { settings, named }: SpecialTokens,
  vocabulary: AddedVocabulary,
  file: string,
): AroundText {
  const given = readPostProcessor(json.post_processor, file);
  if (addsBos === null && !('add_bos_token' in settings) && !('add_eos_token' in settings)) return given;
  const idOf = (name: string): number | undefined => vocabulary.idOf(contentOf(named.get(name) ?? ''));
  const idsOf = (name: string, isAdded: unknown): number[] => {
    const token = named.get(name);
    if (!isAdded || token === undefined) return [];
    // Only an empty token has no id; it is unknown then.
    const id = idOf(name) ?? idOf('unk_token');
    if (id === undefined) throw unexpected('ERR_TOKENIZER', `a token as ${name}`, file, token);
    return [id];
  };
  return {
    before: idsOf('bos_token', 'add_bos_token' in settings ? settings['add_bos_token'] : addsBos),
    after: idsOf('eos_token', settings['add_eos_token']),
  };
}

/**
 * Merges the files: tokenizer.json in the form that the tokenizer's class gives it, and every token that they name.
 *
 * @param json - the parsed tokenizer.json
 * @param given - the files beside it; absent ones are absent in the folder
 * @param file - path of the former, named in errors
 * @param createNormalizer - makes the normalizer of a tokenizer.json
 * @throws NdsError ERR_TOKENIZER for files that are broken or unsupported.
 */
export function mergeTokenizer(
  json: unknown,
  given: Partial<TokenizerFiles>,
  file: string,
  createNormalizer: (json: TokenizerJson, file: string) => (text: string) => string,
): MergedTokenizer {
  const files = { config: {}, specialTokensMap: null, addedTokens: null, modelConfig: {}, folder: file, ...given };
  const tokenizerClass = chooseTokenizerClass(files);
  const { padding } = (json ?? {}) as { padding?: { pad_token?: unknown } | null };
  const fileTokens = checkAddedTokens(json, file);
  const special = new SpecialTokenReader(files, tokenizerClass).read(fileTokens, padding?.pad_token);
  const components = tokenizerClass.components?.(special.settings) ?? null;
  const fixed = fixTokenizerJson(json, components, file);
  checkSettings(special.settings, Object.keys(fixed.json.model.vocab).length, files.folder);
  const normalize = createNormalizer(fixed.json, file);
  const vocabulary = new AddedVocabulary(fixed.json.model.vocab, normalize);
  if (components === null) vocabulary.add(fileTokens);
  vocabulary.add(tokensToAdd(special, new Set(vocabulary.tokens.map(({ content }) => content))));
  const texts = [...new Set([...special.named.values(), ...special.extra].map(contentOf))];
  if (tokenizerClass.addsSpecialAgain) vocabulary.add(texts.map(specialToken));
  return {
    fixed,
    normalize,
    vocabulary,
    specialTokens: Object.fromEntries([...special.named].map(([name, token]) => [name, contentOf(token)])),
    around: readAround(fixed.json, tokenizerClass, special, vocabulary, file),
    splitsSpecial: special.settings['split_special_tokens'] === true,
  };
}
