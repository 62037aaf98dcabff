/** How far logits are from a reference on a known text. Pure. */

/** Sums over scored tokens; `Accuracy` is made of them. Those of several windows of a text add up. */
export interface AccuracySums {
  readonly numTokens: number;
  /** Logits compared: `numTokens × vocabSize`. */
  readonly numLogits: number;
  /** Sum of −ln p(next token), in nats. */
  readonly negativeLogLikelihood: number;
  readonly referenceNegativeLogLikelihood: number;
  readonly squaredError: number;
  readonly maxError: number;
  /** Tokens at which both have the same most probable token; the lower id wins a tie. */
  readonly numAgreements: number;
  /** Sum of KL(reference ‖ other), in nats. */
  readonly klDivergence: number;
}

/** Accuracy beside a reference, by scored tokens of a text. */
export interface Accuracy {
  readonly numTokens: number;
  /** exp of the mean −ln p(next token). */
  readonly perplexity: number;
  readonly referencePerplexity: number;
  /** Largest and root-mean-square difference of raw logits. */
  readonly maxLogitError: number;
  readonly rmsLogitError: number;
  /** Share of tokens, 0 to 1. */
  readonly topOneAgreement: number;
  /** Mean over tokens of KL(reference ‖ other), in nats. */
  readonly klDivergence: number;
}

export const noSums: AccuracySums = {
  numTokens: 0,
  numLogits: 0,
  negativeLogLikelihood: 0,
  referenceNegativeLogLikelihood: 0,
  squaredError: 0,
  maxError: 0,
  numAgreements: 0,
  klDivergence: 0,
};

/**
 * Windows of a text: `[begin, end)` token indices, each computed without the ones before it.
 * The last is left out where it is one token, which predicts nothing.
 */
export function windowsOf(numTokens: number, windowLen: number): (readonly [begin: number, end: number])[] {
  const begins = Array.from({ length: Math.ceil(numTokens / windowLen) }, (_, i) => i * windowLen);
  return begins.map((begin) => [begin, Math.min(begin + windowLen, numTokens)] as const).filter(([begin, end]) => end - begin > 1);
}

/**
 * Compares one window. Row i is scored by token i + 1, so the last row is not.
 * @param logits - `[numTokens, vocabSize]`
 * @param reference - the same of the reference
 * @param tokenIds - `[numTokens]` of the window
 */
export function compareLogits(logits: Float32Array, reference: Float32Array, tokenIds: readonly number[]): AccuracySums {
  const vocabSize = logits.length / tokenIds.length;
  let sums = { ...noSums, numTokens: tokenIds.length - 1, numLogits: (tokenIds.length - 1) * vocabSize };
  for (let i = 0; i + 1 < tokenIds.length; i++) {
    const [begin, end] = [i * vocabSize, (i + 1) * vocabSize];
    sums = addRow(sums, logits.subarray(begin, end), reference.subarray(begin, end), tokenIds[i + 1] as number);
  }
  return sums;
}

/** One row more: `[vocabSize]` logits of both, and the token that follows. */
function addRow(sums: AccuracySums, row: Float32Array, reference: Float32Array, next: number): AccuracySums {
  const [ours, theirs] = [logSumExp(row), logSumExp(reference)];
  let { squaredError, maxError } = sums;
  let klDivergence = 0;
  for (let j = 0; j < row.length; j++) {
    const [logit, referenceLogit] = [row[j] as number, reference[j] as number];
    const error = logit - referenceLogit;
    squaredError += error * error;
    maxError = Math.max(maxError, Math.abs(error));
    const logP = referenceLogit - theirs.value;
    klDivergence += Math.exp(logP) * (logP - (logit - ours.value));
  }
  return {
    ...sums,
    negativeLogLikelihood: sums.negativeLogLikelihood + ours.value - (row[next] as number),
    referenceNegativeLogLikelihood: sums.referenceNegativeLogLikelihood + theirs.value - (reference[next] as number),
    squaredError,
    maxError,
    numAgreements: sums.numAgreements + (ours.argmax === theirs.argmax ? 1 : 0),
    klDivergence: sums.klDivergence + klDivergence,
  };
}

/** ln Σ exp and the first largest index, in double precision. */
function logSumExp(row: Float32Array): { readonly value: number; readonly argmax: number } {
  let argmax = 0;
  for (let j = 1; j < row.length; j++) if ((row[j] as number) > (row[argmax] as number)) argmax = j;
  const top = row[argmax] as number;
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - top);
  return { value: top + Math.log(sum), argmax };
}

/** Sums of two parts of a text. */
export function addSums(one: AccuracySums, other: AccuracySums): AccuracySums {
  return {
    numTokens: one.numTokens + other.numTokens,
    numLogits: one.numLogits + other.numLogits,
    negativeLogLikelihood: one.negativeLogLikelihood + other.negativeLogLikelihood,
    referenceNegativeLogLikelihood: one.referenceNegativeLogLikelihood + other.referenceNegativeLogLikelihood,
    squaredError: one.squaredError + other.squaredError,
    maxError: Math.max(one.maxError, other.maxError),
    numAgreements: one.numAgreements + other.numAgreements,
    klDivergence: one.klDivergence + other.klDivergence,
  };
}

/** The accuracy that sums of at least one token make. */
export function accuracyOf(sums: AccuracySums): Accuracy {
  const { numTokens } = sums;
  return {
    numTokens,
    perplexity: Math.exp(sums.negativeLogLikelihood / numTokens),
    referencePerplexity: Math.exp(sums.referenceNegativeLogLikelihood / numTokens),
    maxLogitError: sums.maxError,
    rmsLogitError: Math.sqrt(sums.squaredError / sums.numLogits),
    topOneAgreement: sums.numAgreements / numTokens,
    klDivergence: sums.klDivergence / numTokens,
  };
}
