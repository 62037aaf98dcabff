/** A model's identity: a hash of its configuration and of all its weights, which is made once for each state of a file. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../../../protocol/errors.ts';
import { readCheckpoint } from '../checkpoint/checkpoint.ts';
import type { StoredTensor } from '../checkpoint/safetensors.ts';
import { type Fingerprint, holds, isSame, isSettled } from './file-record.ts';
import { hashFile, hashHere, type OnHashed, smallBytes } from './hash-file.ts';
import { inTurn, keepRecord, readRecord } from './record-store.ts';
import { combine, segmentsOf, tensorDigests } from './segments.ts';

/** A model as it was when its hash was made. */
export interface ModelIdentity {
  /** SHA-256 in hexadecimal. */
  readonly hash: string;
  /** Of each file that was read, by path. */
  readonly fingerprints: ReadonlyMap<string, Fingerprint>;
}

type Digests = ReadonlyMap<string, string>;
/** Digests of a file's tensors; null if they are not known and must not be made. */
type DigestFile = (path: string, tensors: readonly StoredTensor[], fingerprint: Fingerprint) => Promise<Digests | null>;

/**
 * SHA-256 of config.json and of every tensor's name, type, shape and bytes. It depends neither on the folder's path, nor
 * on sharding, nor on file times. Read from the user's cache while a file's size, times and inode stay as they were.
 * @param onHashed - called some times a second with the bytes hashed so far
 * @throws NdsError as `readCheckpoint`; `ERR_CHECKPOINT` for a file that changes meanwhile.
 */
export async function modelHash(folder: string, onHashed: OnHashed = () => {}): Promise<string> {
  let before = 0;
  const identity = await identify(folder, async (path, tensors, fingerprint) => {
    const known = knownDigests(path, tensors, fingerprint);
    const digests = known ?? (await makeDigests(path, tensors, fingerprint, (numBytes) => onHashed(before + numBytes)));
    before += Number(fingerprint.size);
    return digests;
  });
  if (identity === null) throw new NdsError('ERR_INTERNAL', `Expected a hash of ${folder}`);
  return identity.hash;
}

/** Makes the hash of a model known, unless a large file is so young that its record would not hold. @throws NdsError as `modelHash`. */
export async function learnIdentity(folder: string): Promise<void> {
  await identify(folder, async (path, tensors, fingerprint) => {
    const known = knownDigests(path, tensors, fingerprint);
    return known ?? (isSettled(fingerprint, Date.now()) ? makeDigests(path, tensors, fingerprint, () => {}) : null);
  });
}

/** What `modelHash` would find without reading a large file; null where it would read one. @throws NdsError as `modelHash`. */
export function knownIdentity(folder: string): Promise<ModelIdentity | null> {
  return identify(folder, async (path, tensors, fingerprint) => knownDigests(path, tensors, fingerprint));
}

/** Whether all files are as they were when the hash was made. */
export function isUnchanged({ fingerprints }: ModelIdentity): boolean {
  return [...fingerprints].every(([path, fingerprint]) => {
    const now = statSync(path, { bigint: true, throwIfNoEntry: false });
    return now !== undefined && isSame(now, fingerprint);
  });
}

async function identify(folder: string, digestFile: DigestFile): Promise<ModelIdentity | null> {
  const configPath = join(folder, 'config.json');
  const paths = new Set([configPath, ...[...readCheckpoint(folder).values()].map(({ path }) => path)]);
  const fingerprints = new Map([...paths].map((path) => [path, fingerprintOf(path)]));
  // The headers that count are those of the files as they were found just now.
  const tensors = [...readCheckpoint(folder).values()];
  const config = reading(configPath, () => readFileSync(configPath));
  const digests = new Map<string, string>();
  for (const [path, fingerprint] of fingerprints) {
    if (path === configPath) continue;
    const ofFile = tensors.filter((tensor) => tensor.path === path);
    const found = await digestFile(path, ofFile, fingerprint);
    if (found === null) return null;
    for (const [name, digest] of found) digests.set(name, digest);
  }
  const identity = { hash: combine(config, tensors, digests), fingerprints };
  if (isUnchanged(identity)) return identity;
  throw new NdsError('ERR_CHECKPOINT', `Expected the files of ${folder} to stay as they are while they are hashed but they changed`);
}

const hashSmall = (path: string, tensors: readonly StoredTensor[]) => reading(path, () => hashHere(path, tensors.flatMap(segmentsOf)));

function knownDigests(path: string, tensors: readonly StoredTensor[], fingerprint: Fingerprint): Digests | null {
  if (fingerprint.size <= smallBytes) return tensorDigests(tensors, hashSmall(path, tensors));
  const record = readRecord(path);
  const isKnown = record !== null && holds(record, path, fingerprint) && tensors.every(({ name }) => record.digests.has(name));
  return isKnown ? record.digests : null;
}

/** Hashes a large file, one process after the other: the next finds the record. */
async function makeDigests(path: string, tensors: readonly StoredTensor[], fingerprint: Fingerprint, onHashed: OnHashed): Promise<Digests> {
  return inTurn(path, async () => {
    const known = knownDigests(path, tensors, fingerprint);
    if (known !== null) return known;
    const readAtMs = Date.now();
    const digests = tensorDigests(tensors, await hashFile(path, tensors.flatMap(segmentsOf), onHashed).catch(rethrow(path)));
    if (isSame(fingerprintOf(path), fingerprint)) keepRecord({ path, fingerprint, readAtMs, digests });
    return digests;
  });
}

function fingerprintOf(path: string): Fingerprint {
  const { size, mtimeNs, ctimeNs, ino } = reading(path, () => statSync(path, { bigint: true }));
  return { size, mtimeNs, ctimeNs, ino };
}

function reading<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    return rethrow(path)(error);
  }
}

const rethrow =
  (path: string) =>
  (error: unknown): never => {
    throw new NdsError('ERR_CHECKPOINT', `Expected to read ${path} but received ${(error as Error).message}`, { cause: error });
  };
