/**
 * A log of plans and their results, from which steps can be replayed without the script.
 *
 * The file is `NDSPLAN1` and then records: two 32-bit little-endian lengths, a msgpack header and raw bytes. A `load`
 * record carries the load message; `plan` and `result` records carry sections. Steps count from 0 in each load. Only
 * the last record may be torn, when its writer was killed.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import { decodeDown, encodeMessage, type LoadMessage } from '../../protocol/messages.ts';
import type { Directory } from '../../protocol/sections.ts';
import { viewPlan } from '../../protocol/step-plan.ts';
import { packLasting, viewLasting } from '../../protocol/step-result.ts';
import { decodePlain, encodePlain } from '../../protocol/wire.ts';

const magic = Buffer.from('NDSPLAN1');
const lengthsBytes = 8;
const maxHeaderBytes = 1 << 20;

/** A load: enough to tell whether another machine and model are equal. */
export interface LoadRecord {
  readonly type: 'load';
  /** Version of this package. */
  readonly version: string;
  readonly isa: string;
  readonly worldSize: number;
  /** See `modelHash`. */
  readonly modelHash: string;
  /** The draft model's; null without one. */
  readonly draftHash: string | null;
  readonly message: LoadMessage;
}

/** A plan, or the reproducible part of its result; see `viewLasting`. */
export interface StepRecord {
  readonly type: 'plan' | 'result';
  readonly step: number;
  readonly directory: Directory;
  readonly bytes: Uint8Array;
}

/** The log ends inside a record that starts at byte `offset`: its writer was killed, or the file was cut. */
export interface TornRecord {
  readonly type: 'torn';
  readonly offset: number;
}

export type PlanRecord = LoadRecord | StepRecord | TornRecord;

/** Writes a log. Each record is in the file when the call returns. */
export class PlanRecorder {
  readonly #path: string;
  readonly #file: number;

  /** `append`: keeps earlier loads. @throws NdsError `ERR_USAGE` for a file that cannot be written. */
  constructor(path: string, append: boolean) {
    this.#path = path;
    try {
      this.#file = openSync(path, append ? 'a' : 'w');
    } catch (error) {
      throw new NdsError('ERR_USAGE', `Expected a writable file for record but received ${path}: ${(error as Error).message}`);
    }
    if (fstatSync(this.#file).size === 0) this.#write(magic);
  }

  load({ type, message, ...facts }: LoadRecord): void {
    this.#record({ type, ...facts }, encodeMessage(0, 0, message));
  }

  plan(step: number, directory: Directory, bytes: Uint8Array): void {
    this.#record({ type: 'plan', step, directory: Array.from(directory) }, bytes);
  }

  /** Records the reproducible part of a result: tokens, log-probabilities and hashes, but no times. */
  result(step: number, directory: Directory, bytes: Uint8Array): void {
    const lasting = packLasting(directory, bytes);
    this.#record({ type: 'result', step, directory: Array.from(lasting.directory) }, lasting.bytes);
  }

  close(): void {
    closeSync(this.#file);
  }

  #record(header: object, frame: Uint8Array): void {
    const head = encodePlain(header);
    const lengths = Buffer.alloc(lengthsBytes);
    lengths.writeUInt32LE(head.length, 0);
    lengths.writeUInt32LE(frame.length, 4);
    this.#write(Buffer.concat([lengths, head, frame]));
  }

  #write(bytes: Uint8Array): void {
    try {
      for (let written = 0; written < bytes.length; ) written += writeSync(this.#file, bytes, written);
    } catch (error) {
      throw new NdsError('ERR_SYSTEM', `Expected to write the plan log ${this.#path} but received ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

/**
 * The records of a log, in order.
 * @throws NdsError `ERR_NOT_FOUND` for a missing file, `ERR_PLAN_LOG` for a file that is no log or violates its format.
 */
export function* readPlanLog(path: string): Generator<PlanRecord, void, undefined> {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw new NdsError('ERR_NOT_FOUND', `Expected a plan log but received ${path}: ${(error as Error).message}`);
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new NdsError('ERR_NOT_FOUND', `Expected a plan log but received ${path}, which is no file`);
    const { size } = stat;
    if (size < magic.length || !readAt(file, 0, magic.length).equals(magic)) throw bad(path, 0, 'a plan log', 'something else');
    for (let offset = magic.length; offset < size; ) {
      const lengths = size - offset < lengthsBytes ? null : readAt(file, offset, lengthsBytes);
      const headLength = lengths?.readUInt32LE(0) ?? 0;
      const end = offset + lengthsBytes + headLength + (lengths?.readUInt32LE(4) ?? 0);
      if (lengths === null || (end > size && headLength <= maxHeaderBytes)) return yield { type: 'torn', offset };
      if (headLength > maxHeaderBytes) throw bad(path, offset, `a header of at most ${maxHeaderBytes} bytes`, `one of ${headLength}`);
      const record = readAt(file, offset + lengthsBytes, end - offset - lengthsBytes);
      yield parseRecord(path, offset, record.subarray(0, headLength), record.subarray(headLength));
      offset = end;
    }
  } finally {
    closeSync(file);
  }
}

function parseRecord(path: string, offset: number, head: Uint8Array, frame: Uint8Array): PlanRecord {
  const header = (decodedBy(path, offset, () => decodePlain(head)) ?? {}) as Readonly<Record<string, unknown>>;
  const { type, step, directory, version, isa, worldSize, modelHash, draftHash } = header;
  if (type === 'load') {
    const texts = [version, isa, modelHash].every((text) => typeof text === 'string');
    const { message } = decodedBy(path, offset, () => decodeDown(frame));
    const isDraftHashed = message.type === 'load' && (typeof draftHash === 'string') === (message.draft !== null);
    if (!texts || !isDraftHashed || !Number.isSafeInteger(worldSize) || message.type !== 'load')
      throw bad(path, offset, 'a load', 'one without its facts');
    return { ...(header as object), type, message } as LoadRecord;
  }
  if (type !== 'plan' && type !== 'result') throw bad(path, offset, 'a load, a plan or a result', JSON.stringify(type) ?? 'nothing');
  const isDirectory = Array.isArray(directory) && directory.every((value) => Number.isInteger(value) && Math.abs(value) < 2 ** 31);
  if (!Number.isSafeInteger(step) || !isDirectory) throw bad(path, offset, `a ${type} with its step and directory`, 'one without');
  // Copied, since typed-array views need an aligned start.
  const record: StepRecord = { type, step: step as number, directory: Int32Array.from(directory), bytes: Uint8Array.from(frame) };
  decodedBy<unknown>(path, offset, () =>
    type === 'plan' ? viewPlan(record.step, record.directory, record.bytes) : viewLasting(record.directory, record.bytes),
  );
  return record;
}

function decodedBy<T>(path: string, offset: number, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw bad(path, offset, 'a record', toNdsError(error).message);
  }
}

function readAt(file: number, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let read = 0; read < length; ) {
    const count = readSync(file, bytes, read, length - read, position + read);
    if (count === 0) throw new NdsError('ERR_PLAN_LOG', `Expected ${length} bytes at byte ${position} of a plan log but received ${read}`);
    read += count;
  }
  return bytes;
}

function bad(path: string, offset: number, expected: string, received: string): NdsError {
  return new NdsError('ERR_PLAN_LOG', `Expected ${expected} at byte ${offset} of ${path} but received ${received}`);
}
