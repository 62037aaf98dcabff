/** Numbers added tokens and keeps what is said of them last, as the Rust library's `AddedVocabulary` does. */
import type { AddedToken, TokenSpec } from './added-tokens.ts';

function isSame(a: TokenSpec, b: TokenSpec): boolean {
  const { content, special, normalized, lstrip, rstrip } = a;
  return content === b.content && special === b.special && normalized === b.normalized && lstrip === b.lstrip && rstrip === b.rstrip;
}

/** A vocabulary's added tokens. */
export class AddedVocabulary {
  readonly #vocab: Readonly<Record<string, number>>;
  readonly #numPieces: number;
  readonly #normalize: (text: string) => string;
  /** Whether the vocabulary lacks ids below its highest: new tokens keep the ids of their file then. */
  readonly #isSparse: boolean;
  readonly #idByContent = new Map<string, number>();
  readonly #tokenById = new Map<number, AddedToken>();
  /** Content once added as special: it stays special. */
  readonly #special = new Set<string>();
  /** Normalized content of tokens once added as normalized: their decoded text from then on. */
  readonly #normalizedById = new Map<number, string>();

  constructor(vocab: Readonly<Record<string, number>>, normalize: (text: string) => string) {
    this.#vocab = vocab;
    this.#normalize = normalize;
    // No list of entries: the vocabulary may have 150,000, and a load waits for this.
    let [highest, numPieces] = [-1, 0];
    for (const piece in vocab) {
      highest = Math.max(highest, vocab[piece] as number);
      numPieces++;
    }
    this.#numPieces = numPieces;
    this.#isSparse = highest >= numPieces;
  }

  /** By ascending id. */
  get tokens(): AddedToken[] {
    return [...this.#tokenById.values()].sort((a, b) => a.id - b.id);
  }

  /** The text that the decoder gets for each added token, by id. */
  get decodedById(): ReadonlyMap<number, string> {
    return new Map(this.tokens.map(({ id, content }) => [id, this.#normalizedById.get(id) ?? content]));
  }

  /** Ids that decoded text leaves out. */
  get specialIds(): ReadonlySet<number> {
    return new Set([...this.decodedById].filter(([, text]) => this.#special.has(text)).map(([id]) => id));
  }

  /** Ids of tokens once added as special. */
  get everSpecialIds(): ReadonlySet<number> {
    return new Set(this.tokens.filter(({ content }) => this.#special.has(content)).map(({ id }) => id));
  }

  /** The id of an added token or a piece. */
  idOf(content: string): number | undefined {
    return this.#idByContent.get(content) ?? (Object.hasOwn(this.#vocab, content) ? this.#vocab[content] : undefined);
  }

  /**
   * Adds tokens: a piece of the vocabulary keeps its id, the others are numbered after the vocabulary and the tokens
   * added before. Known content takes over the new flags.
   */
  add(specs: readonly (TokenSpec & { readonly id?: number })[]): void {
    let highest = -1;
    for (const id of this.#tokenById.keys()) highest = Math.max(highest, id);
    let next = Math.max(highest + 1, this.#numPieces);
    for (const spec of specs) {
      const { content, special, normalized, lstrip, rstrip } = spec;
      const known = this.#tokenById.get(this.#idByContent.get(content) ?? -1);
      if (content === '' || (known !== undefined && isSame(known, spec))) continue;
      const id = this.idOf(content) ?? (this.#isSparse ? (spec.id ?? next++) : next++);
      if (normalized) {
        const text = this.#normalize(content);
        if (text !== content) this.#normalizedById.set(id, text);
      }
      this.#idByContent.set(content, id);
      if (special) this.#special.add(content);
      this.#tokenById.set(id, { id, content, special, normalized, lstrip, rstrip });
    }
  }
}
