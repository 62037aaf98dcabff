/** Secrets of one node's ranks in a job of several nodes: CURVE key pairs, and the key of the collectives' frames. */
import { generateKeyPairSync } from 'node:crypto';
import type { CurveKeys, NodesInfo } from '../protocol/control.ts';
import { encodeZ85 } from '../protocol/z85.ts';
import { deriveKey } from './link/token.ts';

type KeyPair = Pick<CurveKeys, 'publicKey' | 'secretKey'>;

const commKeyBytes = 16;
const keyBytes = 32;

/** Keys of the newest epoch. */
export class NodeKeys {
  readonly #secret: string;
  readonly #numRanks: number;
  readonly #localAddr: string;
  #pairs: readonly KeyPair[] = [];
  #epoch = 0;

  /** @param secret - of this run, in hexadecimal @param numRanks - on this node @param localAddr - that its ranks bind to */
  constructor(secret: string, numRanks: number, localAddr: string) {
    this.#secret = secret;
    this.#numRanks = numRanks;
    this.#localAddr = localAddr;
  }

  /** Makes new key pairs. @returns `[numRanks]` public keys */
  renew(epoch: number): readonly string[] {
    this.#epoch = epoch;
    this.#pairs = Array.from({ length: this.#numRanks }, curveKeyPair);
    return this.#pairs.map(({ publicKey }) => publicKey);
  }

  /** What a local rank of this epoch is told in secret. */
  of(localRank: number, publicKeys: readonly string[]): Pick<NodesInfo, 'localAddr' | 'commKey' | 'curve'> {
    const pair = this.#pairs[localRank];
    if (pair === undefined) throw new RangeError(`Expected a local rank below ${this.#pairs.length} but received ${localRank}`);
    return { localAddr: this.#localAddr, commKey: commKey(this.#secret, this.#epoch), curve: { ...pair, publicKeys } };
  }
}

/** Key of the collectives' frames in one epoch, equal on all nodes: 16 bytes in hexadecimal. */
export function commKey(secret: string, epoch: number): string {
  return deriveKey(Buffer.from(secret, 'hex'), `collectives of epoch ${epoch}`, commKeyBytes).toString('hex');
}

/**
 * A CURVE key pair: X25519 in Z85. The keys leave the generator encoded: in Node 20 the export of a key object deadlocks
 * when the collector frees the job that made it meanwhile.
 */
export function curveKeyPair(): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync('x25519', {
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'der' },
  });
  // Both encodings end with the raw key.
  return { publicKey: encodeZ85(publicKey.subarray(-keyBytes)), secretKey: encodeZ85(privateKey.subarray(-keyBytes)) };
}
