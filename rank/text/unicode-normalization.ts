/** Keeps Unicode normalization at the Rust library's version, whatever this Node's version is. */

/**
 * Characters to which Unicode 10 to 18 gave a combining class or a decomposition, and the characters that compose to
 * those. In the Rust library's Unicode 9 tables each is an ordinary character: no mark is reordered across it or
 * composed with it.
 */
const lateMarks = [
  String.raw`\u05C8-\u05C9\u07FD\u0897-\u089F\u08CA-\u08D3\u09FE\u0C3C\u0D3B-\u0D3C\u0EBA\u1715\u1ABF-\u1AF0\u1DF6-\u1DFA\uA82C`,
  String.raw`\u{105C9}\u{105D2}\u{105DA}\u{105E4}\u{10D24}-\u{10D27}\u{10D69}-\u{10D6D}\u{10EAB}-\u{10EAC}\u{10ECB}-\u{10ECF}`,
  String.raw`\u{10EF0}-\u{10EFB}\u{10EFD}-\u{10EFF}\u{10F46}-\u{10F50}\u{10F82}-\u{10F85}\u{11070}\u{1133B}\u{11382}-\u{11385}`,
  String.raw`\u{1138B}\u{1138E}\u{11390}-\u{11391}\u{113B8}\u{113BB}\u{113C2}\u{113C5}\u{113C7}-\u{113C9}\u{113CE}-\u{113D0}\u{1145E}`,
  String.raw`\u{11839}-\u{1183A}\u{11930}\u{11935}\u{11938}\u{1193D}-\u{1193E}\u{11943}\u{119E0}\u{11A34}\u{11A47}\u{11A99}\u{11D42}`,
  String.raw`\u{11D44}-\u{11D45}\u{11D97}\u{11F41}-\u{11F42}\u{1611E}-\u{16129}\u{1612F}\u{16D63}\u{16D67}-\u{16D6A}`,
  String.raw`\u{16FF0}-\u{16FF1}\u{1D127}-\u{1D128}\u{1D250}-\u{1D252}\u{1D25B}-\u{1D25C}\u{1D25F}\u{1D280}-\u{1D281}\u{1E08F}`,
  String.raw`\u{1E130}-\u{1E136}\u{1E2AE}\u{1E2EC}-\u{1E2EF}\u{1E4EC}-\u{1E4EF}\u{1E5EE}-\u{1E5EF}\u{1E6E3}\u{1E6E6}`,
  String.raw`\u{1E6EE}-\u{1E6EF}\u{1E6F5}`,
].join('');

/** A lone surrogate, which no text contains and normalization leaves alone. */
const fence = '\udc00';

/**
 * Normalizer steps that put a fence on both sides of those characters before normalization, and remove the fences after
 * it.
 */
export const fenceLateMarks = {
  before: { type: 'Replace', pattern: { Regex: `[${lateMarks}]` }, content: `${fence}$&${fence}` },
  after: { type: 'Replace', pattern: { Regex: String.raw`\p{Surrogate}` }, content: '' },
};
