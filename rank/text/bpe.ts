/** Byte-pair encoding of one word, as the Rust library's, in O(n log n) of its length. */
import { NdsError } from '../../protocol/errors.ts';
import { MergeQueue } from './merge-queue.ts';

/** `model` of a tokenizer.json, checked. */
export interface BpeModel {
  readonly vocab: Readonly<Record<string, number>>;
  /** Pairs of pieces, or two pieces in one string with a space between; the first is merged first. */
  readonly merges: readonly (string | readonly [left: string, right: string])[];
  /** Stands for characters without a piece; without it they are left out. */
  readonly unk_token?: string | null | undefined;
  /** Whether neighbours without a piece are one unknown token. */
  readonly fuse_unk?: boolean | undefined;
  /** Whether a character without a piece is spelled in bytes such as `<0xE2>`, where all of them have a piece. */
  readonly byte_fallback?: boolean | undefined;
  /** Whether a word that is a piece is that token, whatever the merges say. */
  readonly ignore_merges?: boolean | undefined;
}

/** Multiple of the left id in the key of a pair: above every id. */
const rightIds = 2 ** 22;

/** Max number and UTF-16 length of cached words. */
const maxNumCached = 10_000;
const maxCachedLength = 64;

/** The two pieces of a merge. */
export function mergePair(merge: string | readonly [string, string]): readonly [left: string, right: string] {
  return typeof merge === 'string' ? (merge.split(' ') as [string, string]) : merge;
}

/** A vocabulary with its merges. */
export class Bpe {
  readonly #ids: ReadonlyMap<string, number>;
  /** `[numMerges]` id that each merge makes. */
  readonly #mergedIds: Int32Array;
  /** Rank of each pair, by left id * 2^22 + right id. */
  readonly #ranks = new Map<number, number>();
  readonly #model: BpeModel;
  readonly #cache = new Map<string, readonly number[]>();

  constructor(model: BpeModel) {
    this.#model = model;
    const ids = new Map<string, number>();
    for (const piece in model.vocab) ids.set(piece, model.vocab[piece] as number);
    this.#ids = ids;
    const idOf = (piece: string): number => ids.get(piece) as number;
    this.#mergedIds = Int32Array.from(model.merges, (merge, rank) => {
      const [left, right] = mergePair(merge);
      this.#ranks.set(idOf(left) * rightIds + idOf(right), rank);
      return idOf(left + right);
    });
  }

  /** The id of a piece. */
  idOf(piece: string): number | undefined {
    return this.#ids.get(piece);
  }

  /** Token ids of a word. @throws NdsError ERR_TOKENIZER for one that needs an unknown token that is no piece. */
  encode(word: string): readonly number[] {
    if (word.length > maxCachedLength) return this.encodeUncached(word, new MergeQueue());
    const known = this.#cache.get(word);
    if (known !== undefined) return known;
    const ids = this.encodeUncached(word, new MergeQueue());
    if (this.#cache.size >= maxNumCached) this.#cache.clear();
    this.#cache.set(word, ids);
    return ids;
  }

  /** The same with an empty queue of the caller's, which counts the work. */
  encodeUncached(word: string, queue: MergeQueue): readonly number[] {
    const whole = this.#model.ignore_merges ? this.#ids.get(word) : undefined;
    return whole === undefined ? this.#merge(this.#split(word), queue) : [whole];
  }

  /** Ids of a word's characters. */
  #split(word: string): number[] {
    const { unk_token, fuse_unk, byte_fallback } = this.#model;
    const ids: number[] = [];
    // As in the Rust library an unknown token follows the bytes of characters after it, up to the next one with a piece.
    let isPending = false;
    for (const character of word) {
      const id = this.#ids.get(character);
      const bytes = id === undefined && byte_fallback ? this.#bytesOf(character) : undefined;
      if (id !== undefined) {
        if (isPending) ids.push(this.#unknownId());
        isPending = false;
        ids.push(id);
      } else if (bytes !== undefined) {
        ids.push(...bytes);
      } else if ((unk_token ?? null) !== null) {
        if (isPending && !fuse_unk) ids.push(this.#unknownId());
        isPending = true;
      }
    }
    if (isPending) ids.push(this.#unknownId());
    return ids;
  }

  /** @throws NdsError ERR_TOKENIZER for a model whose unknown token is no piece. */
  #unknownId(): number {
    const { unk_token } = this.#model;
    const id = this.#ids.get(unk_token as string);
    if (id !== undefined) return id;
    const received = JSON.stringify(unk_token);
    throw new NdsError('ERR_TOKENIZER', `Expected a piece of the vocabulary as unk_token of tokenizer.json but received ${received}`);
  }

  /** Ids of a character's bytes; `undefined` if one has no piece. */
  #bytesOf(character: string): number[] | undefined {
    const ids = Array.from(Buffer.from(character), (byte) => this.#ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`));
    return ids.includes(undefined) ? undefined : (ids as number[]);
  }

  /**
   * Merges neighbours, lowest rank first, until no pair has a rank. A linked list of what is left makes a merge O(1); a
   * queued merge whose pair has changed since is skipped.
   */
  #merge(ids: number[], queue: MergeQueue): number[] {
    const length = ids.length;
    const next = Int32Array.from(ids, (_, i) => i + 1);
    const previous = Int32Array.from(ids, (_, i) => i - 1);
    const rankAt = (i: number): number | undefined => {
      const right = next[i] as number;
      return right < length ? this.#ranks.get((ids[i] as number) * rightIds + (ids[right] as number)) : undefined;
    };
    const enqueue = (i: number): void => {
      const rank = rankAt(i);
      if (rank !== undefined) queue.add(rank, i);
    };
    for (let i = 0; i + 1 < length; i++) enqueue(i);
    for (let least = queue.take(); least !== undefined; least = queue.take()) {
      const { rank, position } = least;
      const current = ids[position] === -1 ? undefined : rankAt(position);
      const mergedId = this.#mergedIds[rank] as number;
      if (current === undefined || this.#mergedIds[current] !== mergedId) continue;
      const right = next[position] as number;
      const after = next[right] as number;
      ids[position] = mergedId;
      ids[right] = -1;
      next[position] = after;
      if (after < length) previous[after] = position;
      if (position > 0) enqueue(previous[position] as number);
      enqueue(position);
    }
    return ids.filter((id) => id !== -1);
  }
}
