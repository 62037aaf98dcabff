/** A depth-bounded suffix tree over texts with occurrence counts, which predicts what follows and how likely. */
import { HitRates } from './hit-rates.ts';
import { NodeTable, none, root } from './node-table.ts';

/** Marks the end of a text. */
const end = -1;

/** The place in the tree that matches a text's end. */
export interface Match {
  /** Node of the matched run; `none` (0) where the only occurrence has left the tree and is followed in the text. */
  readonly node: number;
  /** Position of the last matched token in the latest occurrence. */
  readonly position: number;
  /** Matched tokens. */
  readonly length: number;
}

/** Tokens along the likeliest path, and their confidences. */
export interface Draft {
  readonly tokenIds: number[];
  readonly confidences: number[];
  /** Expected accepted tokens: the sum over tokens of the product of confidences up to there. */
  expected: number;
}

/**
 * Suffix tree of SuffixDecoding (Oliaro et al. 2024), bounded in depth and grown lazily: a run that came once is a leaf, which
 * knows where it stands, and gets children when it comes again. So a token costs one node in new text and a step (and, at
 * its second time, a node) for each length up to `maxDepth` in repeated text.
 *
 * Invariant: each occurrence of a run counts at every node on its path, as deep as there are nodes.
 */
export class SuffixTree {
  readonly #maxDepth: number;
  readonly #nodes: NodeTable;
  readonly #rates = new HitRates();
  /** Ring of tokens: position p is at p modulo its length, a power of two. Positions are int32 and wrap. */
  #text = new Int32Array(256);
  /** Positions of the oldest text's first token, and past the newest token. */
  #textStart: number;
  #textEnd: number;
  /** `[#activeLength + 1]` node of the open text's last k tokens, for each k at which they occurred before. */
  readonly #active: Int32Array;
  #activeLength = 0;
  #numTexts = 0;

  /**
   * @param maxDepth - max tokens of a counted run, at least 2
   * @param capacity - nodes before the table is reallocated
   * @param firstPosition - initial position; a test may begin near the end of int32
   */
  constructor(maxDepth: number, capacity = 256, firstPosition = 0) {
    this.#maxDepth = maxDepth;
    this.#textStart = firstPosition;
    this.#textEnd = firstPosition;
    this.#nodes = new NodeTable(capacity);
    this.#active = new Int32Array(maxDepth);
  }

  /** Max tokens of a match: one more is needed to predict what follows. */
  get maxMatchLength(): number {
    return this.#maxDepth - 1;
  }

  get numNodes(): number {
    return this.#nodes.size;
  }

  /** Ended texts in the tree. */
  get numTexts(): number {
    return this.#numTexts;
  }

  /** Child lookups so far, the measure of work. */
  get numLookups(): number {
    return this.#nodes.numLookups;
  }

  /** Adds a token to the end of the open text. */
  append(tokenId: number): void {
    this.#judge(tokenId);
    this.#push(tokenId);
    const position = (this.#textEnd - 1) | 0;
    let length = 0;
    for (let depth = this.#activeLength + 1; depth >= 1; depth--) {
      const child = this.#visit(this.#active[depth - 1] ?? root, tokenId, position, depth);
      if (child === none || depth > this.maxMatchLength) continue;
      this.#active[depth] = child;
      length = Math.max(length, depth);
    }
    this.#activeLength = length;
  }

  /** Ends the open text; the next token begins another. */
  endText(): void {
    this.#judge(end);
    this.#push(end);
    // Not at the root: that texts end says nothing without a token before it.
    const position = (this.#textEnd - 1) | 0;
    for (let depth = this.#activeLength + 1; depth >= 2; depth--) this.#visit(this.#active[depth - 1] ?? root, end, position, depth);
    this.#activeLength = 0;
    this.#numTexts++;
  }

  /** Removes the oldest ended text. */
  forgetOldest(): void {
    const path: number[] = [];
    for (; this.#tokenAt(this.#textStart) !== end; this.#textStart = (this.#textStart + 1) | 0) {
      for (let node = root, depth = 0; depth < this.#maxDepth; depth++) {
        const tokenId = this.#tokenAt(this.#textStart + depth);
        node = this.#nodes.find(node, tokenId);
        if (node === none) break;
        path.push(node);
        if (tokenId === end) break;
      }
      // Deepest first, so that a node that goes has no children left.
      for (let node = path.pop(); node !== undefined; node = path.pop()) this.#nodes.discount(node);
    }
    this.#textStart = (this.#textStart + 1) | 0;
    this.#numTexts--;
  }

  /** Match of the open text's longest end that occurred before; `null` when its last token is new. */
  matchOpenText(): Match | null {
    if (this.#activeLength === 0) return null;
    const node = this.#active[this.#activeLength] ?? root;
    return { node, position: this.#nodes.position(node), length: this.#activeLength };
  }

  /** Match of the longest end of another text; `null` when its last token is new. */
  match(tokenIds: readonly number[]): Match | null {
    for (let length = Math.min(this.maxMatchLength, tokenIds.length); length >= 1; length--) {
      const match = this.#walk(tokenIds, length);
      if (match !== null) return match;
    }
    return null;
  }

  /**
   * Follows the likeliest tokens from a match: at each node the most frequent child, of equals the latest; past a leaf
   * or the deepest node, the text of its latest occurrence.
   *
   * @param most - max tokens
   * @param minTokenProb - min probability of the path, as a product of shares of occurrences
   */
  draft(match: Match, most: number, minTokenProb: number): Draft {
    const draft: Draft = { tokenIds: [], confidences: [], expected: 0 };
    let { node, position, length } = match;
    let pathProb = 1;
    let allRight = 1;
    for (let i = 0; i < most; i++, length++) {
      let share = 1;
      const child = node === none ? none : this.#nodes.likeliestChild(node);
      if (child !== none) {
        share = this.#share(node, child, length);
        position = this.#nodes.position(child);
      } else {
        position = (position + 1) | 0;
      }
      node = child;
      pathProb *= share;
      // The open text's end is followed by what is offered from there on: a text of period p goes on so.
      const beyond = (position - this.#textEnd) | 0;
      const tokenId = beyond < 0 ? this.#tokenAt(position) : (draft.tokenIds[beyond] ?? end);
      if (tokenId === end || pathProb < minTokenProb) break;
      const confidence = this.#rates.confidence(length, share);
      allRight *= confidence;
      draft.tokenIds.push(tokenId);
      draft.confidences.push(confidence);
      draft.expected += allRight;
    }
    return draft;
  }

  /** The share of a run's occurrences that go on with a child; the open text's end does not go on yet. */
  #share(node: number, child: number, length: number): number {
    const isOpen = length <= this.#activeLength && this.#active[length] === node;
    return this.#nodes.count(child) / (this.#nodes.count(node) - (isOpen ? 1 : 0));
  }

  /** Scores the prediction for the open text's next token. */
  #judge(tokenId: number): void {
    const node = this.#active[this.#activeLength] ?? root;
    if (node === root) return;
    const child = this.#nodes.likeliestChild(node);
    const share = this.#share(node, child, this.#activeLength);
    this.#rates.observe(this.#activeLength, share, this.#nodes.token(child) === tokenId);
  }

  /** Counts one more occurrence of a node's child; returns the child, or `none` when this is the first: then it has become a leaf. */
  #visit(node: number, tokenId: number, position: number, depth: number): number {
    const child = this.#nodes.find(node, tokenId);
    if (child === none) {
      this.#nodes.insert(node, tokenId, position);
      return none;
    }
    const earlier = this.#nodes.position(child);
    if (depth < this.#maxDepth && tokenId !== end && !this.#nodes.hasChildren(child)) {
      this.#nodes.insert(child, this.#tokenAt(earlier + 1), (earlier + 1) | 0);
    }
    this.#nodes.recount(child, position);
    return child;
  }

  /** Goes down the tree along the last `length` tokens, and from a leaf on along its text. */
  #walk(tokenIds: readonly number[], length: number): Match | null {
    let node = root;
    let position = 0;
    for (let i = tokenIds.length - length; i < tokenIds.length; i++) {
      const tokenId = tokenIds[i] ?? end;
      const isInText = i > tokenIds.length - length && !this.#nodes.hasChildren(node);
      if (isInText) {
        position = (position + 1) | 0;
        if (this.#tokenAt(position) !== tokenId) return null;
        node = none;
      } else {
        node = this.#nodes.find(node, tokenId);
        if (node === none) return null;
        position = this.#nodes.position(node);
      }
    }
    return { node, position, length };
  }

  #tokenAt(position: number): number {
    return this.#text[position & (this.#text.length - 1)] ?? end;
  }

  #push(tokenId: number): void {
    const length = this.#text.length;
    if (((this.#textEnd - this.#textStart) | 0) === length) {
      const text = new Int32Array(length * 2);
      for (let i = 0; i < length; i++) {
        const position = (this.#textStart + i) | 0;
        text[position & (length * 2 - 1)] = this.#tokenAt(position);
      }
      this.#text = text;
    }
    this.#text[this.#textEnd & (this.#text.length - 1)] = tokenId;
    this.#textEnd = (this.#textEnd + 1) | 0;
  }
}
