/** Finds a tokenizer's added tokens in text, leftmost-longest, as the Rust library does. */

/** A token that is added to a vocabulary, before it has an id. */
export interface TokenSpec {
  readonly content: string;
  /** Whether decoded text leaves it out. */
  readonly special: boolean;
  /** Whether its normalized content is matched in normalized text. */
  readonly normalized: boolean;
  /** Whether it absorbs the white space before it, and after it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

/** An added token. */
export interface AddedToken extends TokenSpec {
  readonly id: number;
}

/** A section of text: an added token, or text to be tokenized, `isFirst` at the start of the whole text. */
export type Section = { readonly id: number } | { readonly text: string; readonly isFirst: boolean };

/** Rust's `\s` is White_Space; JavaScript's has U+FEFF and lacks U+0085. */
const space = String.raw`[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]`;
const spacesAtEnd = new RegExp(`(?<!${space})${space}+$`);
const spacesAtStart = new RegExp(`^${space}+`);

interface TrieNode {
  readonly next: Map<string, TrieNode>;
  token: AddedToken | null;
}

function createNode(): TrieNode {
  return { next: new Map(), token: null };
}

/** A trie of tokens by their text. */
class Matcher {
  readonly #root = createNode();
  readonly #splitIds: ReadonlySet<number>;

  constructor(splitIds: ReadonlySet<number>) {
    this.#splitIds = splitIds;
  }

  add(text: string, token: AddedToken): void {
    let node = this.#root;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charAt(i);
      const child = node.next.get(unit) ?? createNode();
      node.next.set(unit, child);
      node = child;
    }
    // Empty text would match everywhere.
    if (node !== this.#root) node.token ??= token;
  }

  /** The longest token that starts at `start`, and its end. */
  at(text: string, start: number): { token: AddedToken; end: number } | null {
    let found: { token: AddedToken; end: number } | null = null;
    let node = this.#root.next.get(text.charAt(start));
    for (let end = start + 1; node !== undefined; end++) {
      if (node.token !== null) found = { token: node.token, end };
      node = end < text.length ? node.next.get(text.charAt(end)) : undefined;
    }
    return found;
  }

  /** Splits a text. White space absorbed by a token is still searched for further tokens. */
  split(text: string, isFirst: boolean): Section[] {
    const sections: Section[] = [];
    const pushText = (start: number, end: number) => {
      if (start < end) sections.push({ text: text.slice(start, end), isFirst: isFirst && start === 0 });
    };
    let done = 0;
    for (let i = 0; i < text.length; ) {
      const found = this.at(text, i);
      if (found === null) {
        i++;
        continue;
      }
      const { token, end } = found;
      if (this.#splitIds.has(token.id)) {
        i = end;
        continue;
      }
      const spacesBefore = token.lstrip ? (spacesAtEnd.exec(text.slice(done, i))?.[0].length ?? 0) : 0;
      pushText(done, i - spacesBefore);
      sections.push({ id: token.id });
      done = end + (token.rstrip ? (spacesAtStart.exec(text.slice(end))?.[0].length ?? 0) : 0);
      i = end;
    }
    pushText(done, text.length);
    return sections;
  }
}

/** How added tokens are matched. */
export interface MatchOptions {
  /** The tokenizer's normalizer. */
  readonly normalize: (text: string) => string;
  /** Tokens that are found and yet tokenized as text: the special ones, where a tokenizer splits those. */
  readonly splitIds: ReadonlySet<number>;
}

/** The added tokens of one tokenizer. */
export class AddedTokens {
  readonly #plain: Matcher;
  readonly #normalized: Matcher;
  readonly #normalize: (text: string) => string;

  constructor(tokens: readonly AddedToken[], { normalize, splitIds }: MatchOptions) {
    this.#normalize = normalize;
    this.#plain = new Matcher(splitIds);
    this.#normalized = new Matcher(splitIds);
    for (const token of tokens) {
      if (token.normalized) this.#normalized.add(normalize(token.content), token);
      else this.#plain.add(token.content, token);
    }
  }

  /** Splits a text into added tokens and the normalized text between them. */
  split(text: string): Section[] {
    return this.#plain.split(text, true).flatMap((section) => {
      if ('id' in section) return [section];
      return this.#normalized.split(this.#normalize(section.text), section.isFirst);
    });
  }
}
