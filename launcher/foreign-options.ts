/** Options of other tools by name, and what they are here, for the error about an unknown option. */

/** Ours by the names of vLLM, SGLang, llama.cpp, Transformers, Accelerate, DeepSpeed and torch.distributed.launch. */
const synonyms: Readonly<Record<string, readonly string[]>> = {
  'nproc-per-node': ['tensor-parallel-size', 'tp', 'tp-size', 'num-gpus', 'gpus', 'num-processes', 'np', 'nproc', 'world-size'],
  nnodes: ['num-nodes', 'num-machines', 'nnode'],
  'node-rank': ['machine-rank'],
  'master-addr': ['main-process-ip', 'dist-init-addr'],
  'master-port': ['main-process-port'],
  'max-tokens': ['max-new-tokens', 'n-predict', 'num-predict', 'predict', 'n-tokens', 'max-gen-len', 'output-len'],
  temperature: ['temp'],
  'repetition-penalty': ['repeat-penalty'],
  stop: ['stop-sequences', 'stop-sequence', 'stop-strings', 'reverse-prompt'],
  'stop-token-ids': ['eos-token-id'],
  n: ['num-return-sequences', 'best-of', 'num-samples'],
  'max-model-len': ['ctx-size', 'n-ctx', 'context-length', 'max-seq-len', 'max-context-len'],
  'num-threads': ['threads', 'n-threads', 'nthreads'],
  dtype: ['torch-dtype', 'data-type', 'precision'],
  'kv-cache-dtype': ['cache-type-k', 'cache-type-v', 'kv-cache-type'],
  'gpu-memory-utilization': ['mem-fraction-static'],
  'prompt-len': ['input-len', 'n-prompt'],
  'batch-sizes': ['batch-size'],
  'speculative-config': ['speculative-model', 'draft-model', 'model-draft', 'assistant-model', 'num-speculative-tokens', 'draft-max'],
  'log-dir': ['log-directory', 'logdir'],
};

/** Those that are none of ours, with an answer that follows "received --name: ". */
const answers: Readonly<Record<string, string>> = {
  n: '--max-tokens is how many tokens, --n how many continuations',
  model: 'a model is an operand, as in ndsrun generate MODEL PROMPT',
  'pipeline-parallel-size': 'layers are not split over ranks; --nproc-per-node splits each of them',
  'data-parallel-size': 'ranks are tensor parallel (--nproc-per-node); start several jobs for several copies',
  'do-sample': 'it samples unless --temperature is 0',
  'n-gpu-layers': '--device cuda computes all layers there, --device cpu none',
  'trust-remote-code': 'no code of a model is ever run',
  quantization: 'config.json says how a checkpoint is quantized, and nothing else needs to',
  'load-format': 'a checkpoint is safetensors',
  tokenizer: "the tokenizer is that of the model's folder",
  host: 'there is no HTTP server; a script with LLM.load can be one',
  port: 'there is no HTTP server (--master-port is where nodes meet)',
  'api-key': 'there is no HTTP server',
  'served-model-name': 'there is no HTTP server',
  'max-num-seqs': 'it is maxNumSeqs of LLM.load',
  'max-num-batched-tokens': 'it is maxNumBatchedTokens of LLM.load',
  'enable-prefix-caching': 'it is on (enablePrefixCaching of LLM.load)',
  'block-size': 'it is blockSize of LLM.load',
  version: 'ndsrun --version, without a command, prints it',
  color: 'colour follows the terminal, NO_COLOR and FORCE_COLOR',
  'no-color': 'colour follows the terminal, NO_COLOR and FORCE_COLOR',
};

/** Other spellings of names above; short options have one dash there. */
const abbreviations: Readonly<Record<string, string>> = {
  'max-length': 'max-new-tokens',
  pp: 'pipeline-parallel-size',
  dp: 'data-parallel-size',
  ngl: 'n-gpu-layers',
  'gpu-layers': 'n-gpu-layers',
  md: 'model-draft',
  v: 'version',
  V: 'version',
};

const synonymOf = new Map(Object.entries(synonyms).flatMap(([ours, theirs]) => theirs.map((name) => [name, ours] as const)));

/**
 * What another tool's option is here, to follow "received --its-name"; null for a name that is not known.
 * @param option - as given, with dashes
 * @param known - kebab-case names of the options that the command takes
 */
export function foreignAnswer(option: string, known: readonly string[]): string | null {
  const given = option.replace(/^--?/, '').replaceAll('_', '-');
  const name = abbreviations[given] ?? given;
  const ours = synonymOf.get(name);
  if (ours !== undefined)
    return known.includes(ours) ? `, which is --${ours} here` : `, which is --${ours} of other commands (ndsrun help)`;
  const answer = Object.hasOwn(answers, name) ? answers[name] : undefined;
  return answer === undefined ? null : `: ${answer}`;
}
