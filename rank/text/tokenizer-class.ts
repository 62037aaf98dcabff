/**
 * Tokenizer classes of Hugging Face transformers 5: which one reads a folder, the tokens that it has by default, and the
 * components that it puts in the place of tokenizer.json's.
 */
import { type NdsError, unexpected } from '../../protocol/errors.ts';
import type { TokenizerFiles } from './tokenizer-files.ts';

type Component = Readonly<Record<string, unknown>> | null;

/** What a class puts in the place of tokenizer.json's own; its vocabulary, merges and post-processor stay. */
export interface Components {
  readonly normalizer: Component;
  readonly pre_tokenizer: Component;
  readonly decoder: Component;
  readonly model: { readonly fuse_unk: boolean; readonly byte_fallback: boolean; readonly unk_token: string | null };
}

/** Settings of tokenizer_config.json, unchecked. */
type Settings = Readonly<Record<string, unknown>>;

/** One class. */
export interface TokenizerClass {
  /** Named tokens by default, for keys that no file has; null for none, whatever tokenizer.json pads with. */
  readonly defaults: Readonly<Record<string, string | null>>;
  /** `null` for the class that takes tokenizer.json as it is. */
  readonly components: ((settings: Settings) => Components) | null;
  /** Whether its named and extra tokens are added as special once more, with no other flag. */
  readonly addsSpecialAgain: boolean;
  /** Named tokens that are extra special tokens too. */
  readonly extraNames: readonly string[];
  /** Whether `bos_token` goes before a text, unless a setting says it; `null` for what tokenizer.json says. */
  readonly addsBos: boolean | null;
}

const plain = { addsSpecialAgain: false, extraNames: [], addsBos: null };

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const byteLevelModel = { fuse_unk: false, byte_fallback: false, unk_token: null };

function byteLevel(addPrefixSpace: unknown, useRegex: boolean): Component {
  return { type: 'ByteLevel', add_prefix_space: addPrefixSpace === true, trim_offsets: true, use_regex: useRegex };
}

const byteLevelDecoder = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true };

const qwen2Pattern = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

function qwen2Components({ add_prefix_space: addPrefixSpace }: Settings): Components {
  const split = { type: 'Split', pattern: { Regex: qwen2Pattern }, behavior: 'Isolated', invert: false };
  const pretokenizers = [split, byteLevel(addPrefixSpace, false)];
  return {
    normalizer: { type: 'NFC' },
    pre_tokenizer: { type: 'Sequence', pretokenizers },
    decoder: byteLevelDecoder,
    model: byteLevelModel,
  };
}

function metaspaceComponents(scheme: 'always' | 'first' | 'never', strips: boolean, unknown: string | null): Components {
  const strip = strips ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : [];
  const replace = { type: 'Replace', pattern: { String: '▁' }, content: ' ' };
  return {
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: scheme, split: false },
    decoder: { type: 'Sequence', decoders: [replace, { type: 'ByteFallback' }, { type: 'Fuse' }, ...strip] },
    model: { fuse_unk: true, byte_fallback: true, unk_token: unknown },
  };
}

function llamaComponents({ add_prefix_space: addPrefixSpace, legacy = false }: Settings): Components {
  if ((addPrefixSpace ?? true) !== true) return metaspaceComponents('never', false, null);
  return metaspaceComponents(legacy === true ? 'always' : 'first', true, null);
}

function codeLlamaComponents({ add_prefix_space: addPrefixSpace, unk_token: unknown }: Settings): Components {
  return metaspaceComponents((addPrefixSpace ?? true) === true ? 'first' : 'never', true, textOf(unknown) ?? null);
}

const infillTokens = {
  prefix_token: '▁<PRE>',
  middle_token: '▁<MID>',
  suffix_token: '▁<SUF>',
  eot_token: '▁<EOT>',
  fill_token: '<FILL_ME>',
};

const endOfText = '<|endoftext|>';

/** The class that takes tokenizer.json as it is. */
const backend: TokenizerClass = { defaults: {}, components: null, ...plain };

/** The supported classes but that one, by name without `Fast`. */
const classes: Readonly<Record<string, TokenizerClass>> = {
  LlamaTokenizer: {
    defaults: { unk_token: '<unk>', bos_token: '<s>', eos_token: '</s>' },
    components: llamaComponents,
    ...plain,
  },
  CodeLlamaTokenizer: {
    defaults: { unk_token: '<unk>', bos_token: '<s>', eos_token: '</s>', ...infillTokens },
    components: codeLlamaComponents,
    addsSpecialAgain: false,
    extraNames: Object.keys(infillTokens),
    addsBos: true,
  },
  Qwen2Tokenizer: {
    defaults: { unk_token: endOfText, eos_token: endOfText, pad_token: endOfText },
    components: qwen2Components,
    ...plain,
    addsSpecialAgain: true,
  },
  GPT2Tokenizer: {
    defaults: { unk_token: endOfText, bos_token: endOfText, eos_token: endOfText, pad_token: null },
    components: ({ add_prefix_space: addPrefixSpace }) => ({
      normalizer: null,
      pre_tokenizer: byteLevel(addPrefixSpace, true),
      decoder: byteLevelDecoder,
      model: byteLevelModel,
    }),
    ...plain,
  },
  GPTNeoXTokenizer: {
    defaults: { unk_token: endOfText, bos_token: endOfText, eos_token: endOfText, pad_token: '<|padding|>' },
    components: ({ add_prefix_space: addPrefixSpace }) => ({
      normalizer: { type: 'NFC' },
      pre_tokenizer: byteLevel(addPrefixSpace, true),
      decoder: byteLevelDecoder,
      model: byteLevelModel,
    }),
    ...plain,
    addsBos: false,
  },
};

/** Names, without `Tokenizer`, of further classes of transformers 5.17, whose tokens or components are others. */
const unsupported = new Set(
  (
    'Albert Bart Barthez Bartpho Basic Bert BertGeneration BertJapanese Bertweet BigBird BioGpt Blenderbot BlenderbotSmall ByT5 ' +
    'CLIP CTRL Camembert Canine Character Clvp CodeGen Cohere ConvBert Cpm CpmAnt DPRContextEncoder DPRQuestionEncoder ' +
    'DPRReader Deberta DebertaV2 Dia DistilBert Esm Esmc FNet FSMT FastSpeech2Conformer Flaubert Funnel GPTNeoXJapanese GPTSw3 ' +
    'Gemma Herbert LED Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke Lxmert M2M100 MBart MBart50 MLuke MPNet Marian MarkupLM Mecab ' +
    'Mgpstr MobileBert Mvp MyT5 Nllb Nougat OpenAIGPT PLBart Parakeet Pegasus Perceiver Phobert Pop2Piano ProphetNet Qwen3_5 Rag ' +
    'Reformer RemBert RoCBert RoFormer Roberta SeamlessM4T Siglip Siglip2 Speech2Text SpeechT5 Splinter SqueezeBert T5 Tapas ' +
    'Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper Wordpiece XGLM XLM XLMRoberta XLNet'
  ).split(' '),
);

/** The class that transformers prefers for a model type. */
const registered: Readonly<Record<string, string>> = { mistral: 'TokenizersBackend', qwen2: 'Qwen2Tokenizer', qwen3: 'Qwen2Tokenizer' };

/** Folders, or folders of a download cache, of models that name a class which is not theirs; transformers lists them. */
const misnamed = /(?:^|[/\\])(?:models--deepseek-ai--)?deepseek-(?:r1-distill-llama|coder)-[^/\\]*(?:[/\\]snapshots[/\\][^/\\]+)?[/\\]?$/i;

function refuse(name: string, file: string): NdsError {
  const names = ['TokenizersBackend', ...Object.keys(classes)].join(', ');
  return unexpected('ERR_TOKENIZER', `a tokenizer_class of ${names}, or one that is not of transformers,`, file, name);
}

/**
 * The class with which transformers' `AutoTokenizer` reads a folder. A name that it does not know means
 * `TokenizersBackend`, as `PreTrainedTokenizerFast` does.
 *
 * @throws NdsError ERR_TOKENIZER for a class of transformers that is not supported.
 */
export function chooseTokenizerClass({ config, modelConfig, folder }: TokenizerFiles): TokenizerClass {
  const named = textOf(config['tokenizer_class']) ?? textOf(modelConfig['tokenizer_class']);
  const modelType = textOf(modelConfig['model_type']) ?? '';
  const own = Object.hasOwn(registered, modelType) ? registered[modelType] : undefined;
  const hasAutoMap = Object.hasOwn(config, 'auto_map');
  if (!hasAutoMap && misnamed.test(folder)) return backend;
  // Transformers trusts the name in a Qwen3 folder and none in a Qwen2 or Mistral folder.
  const isTrusted = hasAutoMap || own === undefined || modelType === 'qwen3';
  const name = ((isTrusted ? named : undefined) ?? own ?? 'TokenizersBackend').replace(/Fast$/, '');
  if (Object.hasOwn(classes, name)) return classes[name] as TokenizerClass;
  if (unsupported.has(name.replace(/Tokenizer$/, ''))) throw refuse(name, `${folder}/tokenizer_config.json`);
  return backend;
}
