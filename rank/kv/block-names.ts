/** Names of KV blocks: a full block is named by its tokens and all tokens before it. */
import { createHash } from 'node:crypto';

/**
 * Extends the names of a sequence's full blocks: name i is the SHA-256 of name i - 1 and the tokens of block i. Equal
 * names mean equal tokens from the start, and no caller can craft a colliding text.
 *
 * @param names - names of the first blocks; extended in place
 * @param tokenIds - tokens whose values are final
 */
export function extendBlockNames(names: string[], tokenIds: readonly number[], blockSize: number): void {
  for (let end = (names.length + 1) * blockSize; end <= tokenIds.length; end += blockSize) {
    const block = Int32Array.from(tokenIds.slice(end - blockSize, end));
    const hash = createHash('sha256').update(names.at(-1) ?? '');
    names.push(hash.update(new Uint8Array(block.buffer)).digest('base64'));
  }
}
