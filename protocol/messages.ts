/** Messages between rank 0 and the other ranks: one discriminated union per direction, validated on receipt. */
import { integerIn, isObject, oneOf } from './checks.ts';
import { isNdsErrorCode, NdsError, type NdsErrorCode } from './errors.ts';
import { checkMessage, isBoolean, isCount, isString, listOf, objectOf, orNull, type Predicate, type Schema, takes } from './schema.ts';
import { decodePlain, encodePlain } from './wire.ts';

export const kvCacheDtypes = ['float32', 'bfloat16', 'int8'] as const;
/** Element type of cached K and V; int8 has a scale per token and KV head. */
export type KvCacheDtype = (typeof kvCacheDtypes)[number];

export const weightQuantizations = ['none', 'expand', 'int8', 'int4'] as const;
/**
 * How matrices are kept: `none` = as stored; `expand` = those stored as integers or 8-bit floats in bfloat16; else
 * quantized at load in groups of inputs, the LM head in int8 at least.
 */
export type WeightQuantization = (typeof weightQuantizations)[number];

export const draftRules = ['coupled', 'standard', 'block'] as const;
/** How drafts are accepted: `coupled` = the target draws them with the same noise; else a rule on both p and q. */
export type DraftRule = (typeof draftRules)[number];

/** Parameters of a load; equal on all ranks. */
export interface LoadMessage {
  readonly type: 'load';
  /** Absolute path of the model folder. */
  readonly model: string;
  readonly dtype: 'float32' | 'bfloat16';
  /** `dtype`, or int8. */
  readonly kvCacheDtype: KvCacheDtype;
  readonly quantization: WeightQuantization;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  /** Token ids from here on are padding and are never sampled. */
  readonly sampleVocabSize: number;
  /** Compute device, and whether CUDA sums in one fixed order. */
  readonly device: 'cpu' | 'cuda';
  readonly deterministic: boolean;
  /** Threads of each rank; null = each rank's own default. */
  readonly numThreads: number | null;
  /** Whether ranks write traces. */
  readonly trace: boolean;
  readonly draftRule: DraftRule;
  /** Null without a draft model. */
  readonly draft: DraftLoad | null;
}

/** A draft model; all else is as in the target's `LoadMessage`. */
export interface DraftLoad {
  /** Absolute path of the model folder. */
  readonly model: string;
  readonly quantization: WeightQuantization;
  /** Max tokens of a sequence, at most the draft model's context. */
  readonly maxModelLen: number;
  /** Whether it is sharded over the ranks; else each rank holds all of it. */
  readonly isSharded: boolean;
  /** Whether it drafts greedily, whatever the request's sampling parameters. */
  readonly isGreedy: boolean;
}

/** A model that rank 0 has found, for ranks of other nodes to find there. */
export interface ModelSource {
  /** Absolute path of the folder on rank 0's node, as in the load that follows. */
  readonly path: string;
  /** As the user named it; a repository of the hub at the commit that rank 0 has. */
  readonly name: string;
  /** SHA-256 in hexadecimal; see `modelHash`. */
  readonly hash: string;
}

/** One step. The plan's bytes are the second frame of the message. */
export interface PlanMessage {
  readonly type: 'plan';
  readonly step: number;
  /** `[sectionId, byteOffset, byteLength]` per section. */
  readonly directory: readonly number[];
}

/** From rank 0 to one other rank. The channel closes when rank 0 ends. */
export type DownMessage =
  | { readonly type: 'probe'; readonly device: 'cpu' | 'cuda' }
  /** Before a load on several nodes: its models. */
  | { readonly type: 'find'; readonly models: readonly ModelSource[] }
  | LoadMessage
  | PlanMessage
  | { readonly type: 'unload' };

/** Memory that one rank can load into, measured for a `probe`. */
export interface MemoryReport {
  /** The host, or the device of it; equal on ranks that share the memory. */
  readonly place: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** How often a rank reports the progress of a load, in milliseconds. */
export const progressMs = 100;

/** One rank's shard after a load. */
export interface ShardReport {
  readonly rank: number;
  /** Query heads `[begin, end)`, of `numHeads` in the model. */
  readonly heads: readonly [number, number];
  /** KV heads `[begin, end)`; replicated when there are fewer than ranks. */
  readonly kvHeads: readonly [number, number];
  /** Columns of the gate and up projections `[begin, end)`. */
  readonly mlpColumns: readonly [number, number];
  /** Rows of the embedding and the LM head `[begin, end)`. */
  readonly vocabRows: readonly [number, number];
  /** Packed, copied, and mapped. */
  readonly weightBytes: number;
  /** Of `weightBytes`, without padding: what the rank before it on its host holds too (norms, KV heads that both need, a whole draft). */
  readonly replicatedBytes: number;
  readonly kvBytes: number;
  readonly scratchBytes: number;
}

/** From one rank to rank 0. */
export type UpMessage =
  | {
      readonly type: 'hello';
      readonly rank: number;
      readonly worldSize: number;
      readonly version: string;
      readonly isa: string;
      readonly cudaBuild: string;
    }
  | { readonly type: 'probed'; readonly rank: number; readonly memory: MemoryReport }
  /** The rank has the models of a `find`. */
  | { readonly type: 'found'; readonly rank: number }
  /** Bytes of weights packed so far, or of a file downloaded; sent while a load or a `find` runs, at most every `progressMs`. */
  | { readonly type: 'progress'; readonly rank: number; readonly loadedBytes: number }
  | { readonly type: 'loaded'; readonly rank: number; readonly shard: ShardReport }
  | { readonly type: 'unloaded'; readonly rank: number }
  | { readonly type: 'error'; readonly rank: number; readonly code: NdsErrorCode; readonly message: string };

const isPositive = takes(integerIn(1, Number.MAX_SAFE_INTEGER));
const isDevice = takes(oneOf('cpu', 'cuda'));
const isQuantization = takes(oneOf(...weightQuantizations));
const isRange: Predicate = (value) => Array.isArray(value) && value.length === 2 && value.every(isCount) && value[0] <= value[1];

const shardSchema: Schema = {
  rank: isCount,
  heads: isRange,
  kvHeads: isRange,
  mlpColumns: isRange,
  vocabRows: isRange,
  weightBytes: isCount,
  replicatedBytes: isCount,
  kvBytes: isCount,
  scratchBytes: isCount,
};

const memorySchema: Schema = { place: isString, totalBytes: isCount, freeBytes: isCount };

const draftSchema: Schema = {
  model: isString,
  quantization: isQuantization,
  maxModelLen: isPositive,
  isSharded: isBoolean,
  isGreedy: isBoolean,
};

const sourceSchema: Schema = { path: isString, name: isString, hash: isString };

const downSchemas: Readonly<Record<DownMessage['type'], Schema>> = {
  probe: { device: isDevice },
  find: { models: listOf(objectOf(sourceSchema)) },
  load: {
    model: isString,
    dtype: takes(oneOf('float32', 'bfloat16')),
    kvCacheDtype: takes(oneOf(...kvCacheDtypes)),
    quantization: isQuantization,
    blockSize: isPositive,
    numBlocks: isPositive,
    maxModelLen: isPositive,
    maxNumSeqs: isPositive,
    maxNumBatchedTokens: isPositive,
    maxNumLogitRows: isPositive,
    sampleVocabSize: isPositive,
    device: isDevice,
    deterministic: isBoolean,
    numThreads: orNull(isPositive),
    trace: isBoolean,
    draftRule: takes(oneOf(...draftRules)),
    draft: orNull(objectOf(draftSchema)),
  },
  plan: { step: isCount, directory: (value) => Array.isArray(value) && value.length % 3 === 0 && value.every(isInt32) },
  unload: {},
};

const upSchemas: Readonly<Record<UpMessage['type'], Schema>> = {
  hello: { rank: isPositive, worldSize: isPositive, version: isString, isa: isString, cudaBuild: isString },
  probed: { rank: isPositive, memory: objectOf(memorySchema) },
  found: { rank: isPositive },
  progress: { rank: isPositive, loadedBytes: isCount },
  loaded: { rank: isPositive, shard: objectOf(shardSchema) },
  unloaded: { rank: isPositive },
  error: { rank: isPositive, code: isNdsErrorCode, message: isString },
};

function isInt32(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0x7fffffff;
}

/** A message with its place on its channel. */
export interface Envelope<Message> {
  /** Epoch of the gang; see `GangInfo`. */
  readonly epoch: number;
  /** Counts the messages of one sender on one channel in this epoch, from 0. */
  readonly sequence: number;
  readonly message: Message;
}

/** The first frame of a message. */
export function encodeMessage(epoch: number, sequence: number, message: DownMessage | UpMessage): Uint8Array {
  return encodePlain({ epoch, sequence, ...message });
}

function decode<Message extends { type: string }>(bytes: Uint8Array, schemas: Readonly<Record<string, Schema>>): Envelope<Message> {
  const value = decodePlain(bytes);
  const fail = (received: string) => new NdsError('ERR_PROTOCOL', `Expected a known control message but received ${received}`);
  if (!isObject(value)) throw fail('something other than an object');
  const { epoch, sequence, ...message } = value;
  if (!isCount(epoch)) throw fail('one without an epoch');
  if (!isCount(sequence)) throw fail('one without a sequence number');
  checkMessage(message, schemas, fail);
  return { epoch: epoch as number, sequence: sequence as number, message: message as unknown as Message };
}

/** Reads a message from rank 0. @throws NdsError `ERR_PROTOCOL` when it breaks its schema. */
export function decodeDown(bytes: Uint8Array): Envelope<DownMessage> {
  return decode<DownMessage>(bytes, downSchemas);
}

/** Reads a message to rank 0. @throws NdsError `ERR_PROTOCOL` when it breaks its schema. */
export function decodeUp(bytes: Uint8Array): Envelope<UpMessage> {
  return decode<UpMessage>(bytes, upSchemas);
}
