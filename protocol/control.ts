/** Messages between a launcher and one of its ranks, over an inherited socket: frames that hold one object each. */
import { NdsError } from './errors.ts';
import type { FailureRecord } from './failure.ts';
import { encodeFrame, FrameReader } from './frames.ts';
import { checkMessage, isCount, isString, listOf, objectOf, orNull, type Schema } from './schema.ts';

/** What a rank needs to meet the others. A gang whose followers were started anew is another epoch. */
export interface GangInfo {
  readonly epoch: number;
  /** Folder of this epoch's sockets and records on this node, mode 0700. */
  readonly runDir: string;
  /** Shared memory of this epoch, for a rank that is older than it; null = the inherited descriptor. */
  readonly shmPath: string | null;
  /** Null on one node. */
  readonly nodes: NodesInfo | null;
}

/** A job of several nodes, as one of its ranks sees it. Holds secrets: never in an environment or a file. */
export interface NodesInfo {
  /** `[nnodes]` address that each node is reached at. */
  readonly addresses: readonly string[];
  /** Address that this node's ranks bind to. */
  readonly localAddr: string;
  /** Key of the collectives' frames: 16 bytes in hexadecimal. */
  readonly commKey: string;
  readonly curve: CurveKeys;
}

/** CURVE keys in Z85. */
export interface CurveKeys {
  readonly publicKey: string;
  readonly secretKey: string;
  /** `[worldSize]` public key of each rank; rank 0 admits these and no others. */
  readonly publicKeys: readonly string[];
}

/** From a launcher to one of its ranks. */
export type ToRank =
  /** First message to every rank; again to rank 0 when the others were started anew. */
  | { readonly type: 'gang'; readonly gang: GangInfo }
  /** To rank 0: a follower was lost, and another epoch follows. */
  | { readonly type: 'lost'; readonly epoch: number; readonly failure: FailureRecord }
  /** What a rank of any node has published, its own included; in no order. */
  | { readonly type: 'published'; readonly epoch: number; readonly key: string; readonly value: string };

/** From a rank to its launcher. */
export type ToLauncher =
  /** For the ranks of all nodes to know, such as a port. A key is published once in an epoch. */
  | { readonly type: 'publish'; readonly epoch: number; readonly key: string; readonly value: string }
  /** The rank has loaded a model in this epoch. */
  | { readonly type: 'ready'; readonly epoch: number };

const maxFrameBytes = 1 << 20;

const curveSchema: Schema = { publicKey: isString, secretKey: isString, publicKeys: listOf(isString) };
const nodesSchema: Schema = { addresses: listOf(isString), localAddr: isString, commKey: isString, curve: objectOf(curveSchema) };
const gangSchema: Schema = { epoch: isCount, runDir: isString, shmPath: orNull(isString), nodes: orNull(objectOf(nodesSchema)) };
export const failureSchema: Schema = {
  rank: isCount,
  exitCode: orNull(isCount),
  signal: orNull(isString),
  code: orNull(isString),
  message: orNull(isString),
};

const toRankSchemas: Readonly<Record<ToRank['type'], Schema>> = {
  gang: { gang: objectOf(gangSchema) },
  lost: { epoch: isCount, failure: objectOf(failureSchema) },
  published: { epoch: isCount, key: isString, value: isString },
};

const toLauncherSchemas: Readonly<Record<ToLauncher['type'], Schema>> = {
  publish: { epoch: isCount, key: isString, value: isString },
  ready: { epoch: isCount },
};

/** A message with its length before it. */
export function encodeControl(message: ToRank | ToLauncher): Buffer {
  return encodeFrame(message);
}

/** Joins the chunks of a stream to messages. */
export class ControlReader<Message extends ToRank | ToLauncher> {
  readonly #schemas: Readonly<Record<string, Schema>>;
  readonly #frames = new FrameReader(maxFrameBytes);

  private constructor(schemas: Readonly<Record<string, Schema>>) {
    this.#schemas = schemas;
  }

  static ofRank(): ControlReader<ToRank> {
    return new ControlReader(toRankSchemas);
  }

  static ofLauncher(): ControlReader<ToLauncher> {
    return new ControlReader(toLauncherSchemas);
  }

  /** The messages that a chunk completes. @throws NdsError `ERR_PROTOCOL` for one that breaks its schema. */
  push(chunk: Uint8Array): Message[] {
    return this.#frames.push(chunk).map((value) => this.#check(value));
  }

  #check(value: unknown): Message {
    checkMessage(value, this.#schemas, bad);
    return value as Message;
  }
}

function bad(received: string): NdsError {
  return new NdsError('ERR_PROTOCOL', `Expected a known message between launcher and rank but received ${received}`);
}
