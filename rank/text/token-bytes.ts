/** The bytes of each token id, read once from the vocabulary and the `decoder` of tokenizer.json. */
import { NdsError } from '../../protocol/errors.ts';

/** Max copies of a character that are stripped from the start of the decoded text. */
export interface LeadingStrip {
  readonly content: string;
  readonly count: number;
}

/** One decoder of tokenizer.json, unchecked. */
interface DecoderStep {
  readonly type?: unknown;
  readonly pattern?: { readonly String?: unknown };
  readonly content?: unknown;
  readonly start?: unknown;
  readonly stop?: unknown;
}

interface DecoderRules {
  /** Whether pieces spell bytes in GPT-2's printable alphabet. */
  readonly byteLevel: boolean;
  /** Literal replacements, applied to every piece in order. */
  readonly replacements: readonly (readonly [from: string, to: string])[];
  /** Whether a piece such as `<0xE2>` stands for that byte. */
  readonly byteFallback: boolean;
  readonly leadingStrip: LeadingStrip;
}

const noStrip: LeadingStrip = { content: '', count: 0 };

/**
 * GPT-2's alphabet: UTF-16 code unit → byte, -1 for characters outside it. Printable Latin-1 stands for itself; U+0100
 * onwards stands for the other 68 bytes in ascending order.
 */
const byteOfUnit: Int16Array = (() => {
  const table = new Int16Array(256 + 68).fill(-1);
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table[printable ? byte : next++] = byte;
  }
  return table;
})();

function unsupported(file: string, what: string): NdsError {
  const supported = 'ByteLevel, or a Sequence of Replace (a string), ByteFallback, Fuse and Strip (at the start)';
  return new NdsError('ERR_TOKENIZER', `Expected decoder ${supported} for ${file} but received ${what}`);
}

function readStrip(step: DecoderStep, file: string): LeadingStrip {
  const { content, start = 0, stop = 0 } = step;
  if (typeof content !== 'string' || content.length !== 1 || !Number.isInteger(start) || stop !== 0) {
    throw unsupported(file, JSON.stringify(step));
  }
  return { content, count: start as number };
}

/** Reads `decoder`; refuses decoders that do not work token by token. */
function readDecoder(decoder: unknown, file: string): DecoderRules {
  const { type, decoders } = (decoder ?? {}) as { type?: unknown; decoders?: unknown };
  const steps = (type === 'Sequence' && Array.isArray(decoders) ? decoders : [decoder]) as (DecoderStep | null)[];
  const replacements: [string, string][] = [];
  let [byteLevel, byteFallback, fused] = [false, false, false];
  let leadingStrip = noStrip;
  for (const step of steps) {
    const pattern = step?.pattern?.String;
    if (step?.type === 'ByteLevel' && steps.length === 1) {
      byteLevel = true;
    } else if (step?.type === 'Replace' && typeof pattern === 'string' && typeof step.content === 'string' && !byteFallback && !fused) {
      replacements.push([pattern, step.content]);
    } else if (step?.type === 'ByteFallback' && !fused) {
      byteFallback = true;
    } else if (step?.type === 'Fuse') {
      fused = true;
    } else if (step?.type === 'Strip' && fused && leadingStrip === noStrip) {
      leadingStrip = readStrip(step, file);
    } else {
      throw unsupported(file, JSON.stringify(step?.type ?? step ?? null));
    }
  }
  return { byteLevel, replacements, byteFallback, leadingStrip };
}

/**
 * Writes the bytes of a byte-level piece at `offset`; returns their number, or -1 for a character outside the alphabet.
 */
function writeByteLevel(piece: string, target: Uint8Array, offset: number): number {
  for (let i = 0; i < piece.length; i++) {
    const byte = byteOfUnit[piece.charCodeAt(i)] ?? -1;
    if (byte < 0) return -1;
    target[offset + i] = byte;
  }
  return piece.length;
}

/** Bytes by token id, in one buffer; an id without a piece has none. */
export class TokenBytes {
  readonly leadingStrip: LeadingStrip;
  /** Ids of single bytes by byte fallback. Where there are any, every other token consists of whole characters. */
  readonly byteIds: ReadonlySet<number>;
  /** Number of bytes of the longest token. */
  readonly maxLength: number;
  /** `[vocabSize + 1]` offset of each id's first byte. */
  readonly #starts: Uint32Array;
  readonly #bytes: Uint8Array;

  /**
   * @param pieces - the piece of each id, sparse
   * @param decoder - `decoder` of tokenizer.json
   * @param file - named in errors
   * @throws NdsError ERR_TOKENIZER for an unsupported decoder
   */
  constructor(pieces: readonly (string | undefined)[], decoder: unknown, file: string) {
    const rules = readDecoder(decoder, file);
    const decode = (piece = ''): string => rules.replacements.reduce((text, [from, to]) => text.replaceAll(from, () => to), piece);
    const texts = Array.from(pieces, decode);
    // A UTF-16 code unit takes at most three bytes of UTF-8.
    const buffer = new Uint8Array(texts.reduce((sum, text) => sum + 3 * text.length, 0));
    const encoder = new TextEncoder();
    this.#starts = new Uint32Array(texts.length + 1);
    let end = 0;
    let longest = 0;
    const byteIds = new Set<number>();
    for (const [id, text] of texts.entries()) {
      let length = rules.byteLevel ? writeByteLevel(text, buffer, end) : -1;
      const byte = rules.byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1] : undefined;
      if (byte !== undefined) {
        buffer[end] = Number.parseInt(byte, 16);
        length = 1;
        byteIds.add(id);
      }
      if (length < 0) length = encoder.encodeInto(text, buffer.subarray(end)).written;
      longest = Math.max(longest, length);
      end += length;
      this.#starts[id + 1] = end;
    }
    this.#bytes = buffer.slice(0, end);
    this.maxLength = longest;
    this.byteIds = byteIds;
    this.leadingStrip = rules.leadingStrip;
  }

  /** Highest id + 1. */
  get size(): number {
    return this.#starts.length - 1;
  }

  /** The bytes of a token, a read-only view. Empty for an id past the table, as vocabularies are often padded. */
  get(id: number): Uint8Array {
    const start = this.#starts[id];
    const end = this.#starts[id + 1];
    return start === undefined || end === undefined ? new Uint8Array(0) : this.#bytes.subarray(start, end);
  }
}
