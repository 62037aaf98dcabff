/** Nodes of a suffix tree as integer columns: no object per node, so nothing for the garbage collector to walk. */

/** The node of the empty run. */
export const root = 0;
/** Marks the absence of a node; the root is no node's child. */
export const none = 0;

/** Random per process, so that no texts can be chosen whose nodes all share a bucket. */
const hashSeed = Math.floor(Math.random() * 2 ** 32);

/**
 * Counted nodes, found by parent and token.
 *
 * 40 bytes per node, and room for up to as many again after growing. Children of the root have no sibling links and no
 * likeliest: they are as many as the vocabulary has tokens, and no match is empty.
 */
export class NodeTable {
  #parents: Int32Array;
  #tokens: Int32Array;
  #counts: Int32Array;
  /** Position of the run's last token in its latest occurrence. */
  #positions: Int32Array;
  /** Most frequent child, of equals the latest; 0 = none, or unknown since it was discounted. */
  #likeliest: Int32Array;
  #firstChild: Int32Array;
  #nextSibling: Int32Array;
  #previousSibling: Int32Array;
  /** Next node of the same bucket, or of the list of free nodes. */
  #nextInBucket: Int32Array;
  /** `[power of two]` first node of each bucket. */
  #buckets: Int32Array;
  #firstFree = none;
  /** Nodes ever allocated, the root included. */
  #numTaken = 1;
  #numFree = 0;
  #numLookups = 0;

  constructor(capacity: number) {
    const length = 2 ** Math.ceil(Math.log2(capacity + 1));
    this.#parents = new Int32Array(length);
    this.#tokens = new Int32Array(length);
    this.#counts = new Int32Array(length);
    this.#positions = new Int32Array(length);
    this.#likeliest = new Int32Array(length);
    this.#firstChild = new Int32Array(length);
    this.#nextSibling = new Int32Array(length);
    this.#previousSibling = new Int32Array(length);
    this.#nextInBucket = new Int32Array(length);
    this.#buckets = new Int32Array(length);
  }

  /** Nodes, without the root. */
  get size(): number {
    return this.#numTaken - 1 - this.#numFree;
  }

  /** Calls of `find`. */
  get numLookups(): number {
    return this.#numLookups;
  }

  token(node: number): number {
    return this.#tokens[node] ?? 0;
  }

  count(node: number): number {
    return this.#counts[node] ?? 0;
  }

  position(node: number): number {
    return this.#positions[node] ?? 0;
  }

  hasChildren(node: number): boolean {
    return this.#firstChild[node] !== none;
  }

  /** The child with a token, or `none`. */
  find(parent: number, token: number): number {
    this.#numLookups++;
    let node = this.#buckets[this.#bucketOf(parent, token)] ?? none;
    while (node !== none && (this.#parents[node] !== parent || this.#tokens[node] !== token)) node = this.#nextInBucket[node] ?? none;
    return node;
  }

  /** Adds a child with one occurrence. */
  insert(parent: number, token: number, position: number): void {
    const node = this.#take();
    const bucket = this.#bucketOf(parent, token);
    this.#parents[node] = parent;
    this.#tokens[node] = token;
    this.#counts[node] = 0;
    this.#likeliest[node] = none;
    this.#firstChild[node] = none;
    this.#nextInBucket[node] = this.#buckets[bucket] ?? none;
    this.#buckets[bucket] = node;
    if (parent !== root) {
      const sibling = this.#firstChild[parent] ?? none;
      this.#nextSibling[node] = sibling;
      this.#previousSibling[node] = none;
      if (sibling === none) this.#likeliest[parent] = node;
      else this.#previousSibling[sibling] = node;
      this.#firstChild[parent] = node;
    }
    this.recount(node, position);
  }

  /** Counts one more occurrence, the latest. */
  recount(node: number, position: number): void {
    const count = this.count(node) + 1;
    this.#counts[node] = count;
    this.#positions[node] = position;
    const parent = this.#parents[node] ?? root;
    const likeliest = this.#likeliest[parent] ?? none;
    if (likeliest !== none && count >= this.count(likeliest)) this.#likeliest[parent] = node;
  }

  /** Removes one occurrence, the oldest; a node without any left is freed, and must have no children. */
  discount(node: number): void {
    const count = this.count(node) - 1;
    this.#counts[node] = count;
    const parent = this.#parents[node] ?? root;
    if (this.#likeliest[parent] === node) this.#likeliest[parent] = none;
    if (count === 0) this.#remove(node, parent);
  }

  /** The most frequent child, of equals the latest; `none` without children. Scans them only after a `discount`. */
  likeliestChild(node: number): number {
    let best = this.#likeliest[node] ?? none;
    if (best !== none) return best;
    for (let child = this.#firstChild[node] ?? none; child !== none; child = this.#nextSibling[child] ?? none) {
      const lead = this.count(child) - this.count(best);
      if (best === none || lead > 0 || (lead === 0 && ((this.position(child) - this.position(best)) | 0) > 0)) best = child;
    }
    this.#likeliest[node] = best;
    return best;
  }

  #remove(node: number, parent: number): void {
    const bucket = this.#bucketOf(parent, this.token(node));
    let before = none;
    for (let other = this.#buckets[bucket] ?? none; other !== node; other = this.#nextInBucket[other] ?? none) before = other;
    const after = this.#nextInBucket[node] ?? none;
    if (before === none) this.#buckets[bucket] = after;
    else this.#nextInBucket[before] = after;
    if (parent !== root) {
      const next = this.#nextSibling[node] ?? none;
      const previous = this.#previousSibling[node] ?? none;
      if (previous === none) this.#firstChild[parent] = next;
      else this.#nextSibling[previous] = next;
      if (next !== none) this.#previousSibling[next] = previous;
    }
    this.#nextInBucket[node] = this.#firstFree;
    this.#firstFree = node;
    this.#numFree++;
  }

  #take(): number {
    const node = this.#firstFree;
    if (node !== none) {
      this.#firstFree = this.#nextInBucket[node] ?? none;
      this.#numFree--;
      return node;
    }
    if (this.#numTaken === this.#parents.length) this.#grow();
    return this.#numTaken++;
  }

  #grow(): void {
    this.#parents = doubled(this.#parents);
    this.#tokens = doubled(this.#tokens);
    this.#counts = doubled(this.#counts);
    this.#positions = doubled(this.#positions);
    this.#likeliest = doubled(this.#likeliest);
    this.#firstChild = doubled(this.#firstChild);
    this.#nextSibling = doubled(this.#nextSibling);
    this.#previousSibling = doubled(this.#previousSibling);
    this.#nextInBucket = doubled(this.#nextInBucket);
    this.#buckets = new Int32Array(this.#buckets.length * 2);
    // No node is free here, or it would have been taken.
    for (let node = 1; node < this.#numTaken; node++) {
      const bucket = this.#bucketOf(this.#parents[node] ?? root, this.token(node));
      this.#nextInBucket[node] = this.#buckets[bucket] ?? none;
      this.#buckets[bucket] = node;
    }
  }

  #bucketOf(parent: number, token: number): number {
    const mixed = Math.imul((parent + hashSeed) ^ Math.imul(token, 0x9e3779b1), 0x85ebca6b);
    return (mixed ^ (mixed >>> 15)) & (this.#buckets.length - 1);
  }
}

function doubled(column: Int32Array): Int32Array {
  const longer = new Int32Array(column.length * 2);
  longer.set(column);
  return longer;
}
