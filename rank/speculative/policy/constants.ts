/**
 * The tuned numbers of the draft policy, with unit and origin. "Scenario" names the one of
 * test/unit/speculative/draft-policy.test.ts that a worse value fails or loses most in; without one the value is a
 * convention that no scenario is sensitive to.
 */

/** Prior acceptance of a first draft, as a probability: the low end of what real pairs of models reach, 0.6 to 0.8. */
export const PRIOR_RATE = 0.6;
/** Prior strength, in pseudo-trials, of all requests' counts and of one request's. Scenario: requests that differ. */
export const SHARED_STRENGTH = 4;
export const OWN_STRENGTH = 3;
/** Discount of older trials with each new trial: memory of 200 and 20 trials. Scenario: a text that becomes hard. */
export const SHARED_DISCOUNT = 0.995;
export const OWN_DISCOUNT = 0.95;
/** Discount with each step, whether a position was tried or not: memory of 100 and 50 steps. Scenario: a text that becomes easy. */
export const SHARED_FADE = 0.99;
export const OWN_FADE = 0.98;
/** Bounds of a prior, as probabilities, so that no position is hopeless or certain for good. */
export const LEAST_RATE = 0.005;
export const MOST_RATE = 0.98;

/** Rows up to which each count has a knot; above, two per octave: a row is below noise. Scenario: kernels in tiles. */
export const EXACT_ROWS = 9;
/** Measurements whose median starts a knot = repeats of a shape in the sweep. Scenario: one of them is held up. */
export const FIRST_MEASUREMENTS = 5;
/** Clip of a residual, in natural logarithms, which bounds the effect of one delayed step. Scenario: noise. */
export const CLIP = 0.5;
/** Weight of a measurement in a knot's mean: its min, its growth per step since the last measurement, and its max. */
export const LEAST_WEIGHT = 0.02;
export const STALE_WEIGHT = 0.01;
export const MOST_WEIGHT = 0.3;
/** Max measurements that weigh a knot when neighbours are pooled to a monotone curve. */
export const MOST_EVIDENCE = 50;
/** Prior standard deviation of an attended token's cost: a row's time ÷ this. Scenario: long contexts. */
export const PRIOR_CONTEXT = 4096;
/** Process noise of that cost per step, as a share of its prior variance; measurement noise, of the estimate. */
export const CONTEXT_DRIFT = 1e-3;
export const MEASUREMENT_NOISE = 0.2;
/** Min host time of a step, in seconds: steps that follow at once measure 0, which has no logarithm. */
export const LEAST_HOST_SECONDS = 1e-6;

/** Min goodput of drafts, relative to plain: estimates err by a few percent. Scenario: never slower than none. */
export const LEAST_GAIN = 1.05;
/** Tokens over which the catch-up of a draft model is spread: acceptance may not hold for longer. Scenario: catch-ups. */
export const HORIZON = 128;
/** Exploration bonus: tokens of each sequence and step since the last trial. Scenarios: easy text, never slower than none. */
export const EXPLORATION = 0.01;
/** Max steps with drafts before a plain one re-measures plain decoding. Where the host pays for drafts it saves 7 %. */
export const REFRESH = 128;
/** Loss budget against plain decoding: a share of its seconds, and steps ÷ √sequences. Scenario: wrong estimates. */
export const LOSS_SHARE = 0.01;
export const LOSS_STEPS = 16;
/** Min loss budget, in seconds: more than the first 100 steps of a cold process lose to compiling JavaScript. */
export const LEAST_LOSS_SECONDS = 0.03;
