/** One duration, estimated from noisy measurements. */
import { CLIP, FIRST_MEASUREMENTS, LEAST_WEIGHT, MOST_WEIGHT, STALE_WEIGHT } from './constants.ts';

/** Clips a residual to ±`CLIP`. */
export function clipResidual(residual: number): number {
  return Math.max(-CLIP, Math.min(CLIP, residual));
}

/** The median of the first measurements, then a running mean of clipped ones: one that is measured rarely follows faster. */
export class MeasuredSeconds {
  /** The estimate; before the first measurement a guess. */
  seconds: number;
  /** Sum of the measurements' weights. */
  numMeasured = 0;
  #lastMeasured: number;
  readonly #first: number[] = [];

  constructor(guess: number, step: number) {
    this.seconds = guess;
    this.#lastMeasured = step;
  }

  /** Step `step` took exp(`residual`) times the estimate. `weight` up to 1: this duration's share of what was measured. */
  learn(residual: number, step: number, weight = 1): void {
    if (weight >= 0.5 && this.#first.length < FIRST_MEASUREMENTS) {
      this.#first.push(this.seconds * Math.exp(residual));
      const sorted = [...this.#first].sort((a, b) => a - b);
      const middle = sorted.length / 2;
      this.seconds = Math.sqrt((sorted[Math.ceil(middle) - 1] as number) * (sorted[Math.floor(middle)] as number));
    } else {
      const rate = Math.min(MOST_WEIGHT, Math.max(LEAST_WEIGHT, STALE_WEIGHT * (step - this.#lastMeasured)));
      this.seconds *= Math.exp(rate * weight * clipResidual(residual));
    }
    this.numMeasured += weight;
    if (weight >= 0.25) this.#lastMeasured = step;
  }
}
