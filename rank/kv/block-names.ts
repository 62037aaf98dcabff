/** Names of KV blocks: what a full block holds is named by its tokens and all tokens before it. */
import { createHash } from 'node:crypto';

/**
 * Extends the names of a sequence's full blocks: name i is SHA-256 of name i - 1 and of the tokens of block i, so that equal
 * names mean equal tokens from the beginning on, and nobody can choose a text whose name is another's.
 *
 * @param names - names so far, of the first blocks; extended in place
 * @param tokenIds - tokens whose values are final
 */
export function extendBlockNames(names: string[], tokenIds: readonly number[], blockSize: number): void {
  for (let end = (names.length + 1) * blockSize; end <= tokenIds.length; end += blockSize) {
    const block = Int32Array.from(tokenIds.slice(end - blockSize, end));
    const hash = createHash('sha256').update(names.at(-1) ?? '');
    names.push(hash.update(new Uint8Array(block.buffer)).digest('base64'));
  }
}
