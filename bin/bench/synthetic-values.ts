/** Values of made-up checkpoints, the same for the same shape. Pure. */
import type { TensorShape } from './shapes.ts';

/** Distinct values of a tensor, a prime: rows of a matrix differ. */
const period = 1_048_583;

/** Elements of a tensor. */
export function numValuesOf(shape: readonly number[]): number {
  return shape.reduce((size, length) => size * length, 1);
}

/** bf16 values of the tensors of a shape. */
export class SyntheticValues {
  readonly #tensors: readonly TensorShape[];
  readonly #noise = normals();
  /** `[period]` bf16 values by deviation; 0 = ones. */
  readonly #scaled = new Map<number, Uint16Array>();

  constructor(tensors: readonly TensorShape[]) {
    this.#tensors = tensors;
  }

  /** The values of tensor `i` from `begin` up to `end`, in pieces; of the whole tensor without them. */
  *pieces(i: number, begin = 0, end?: number): Generator<Uint16Array> {
    const { shape, deviation } = this.#tensors[i] as TensorShape;
    const values = this.#scaled.get(deviation ?? 0) ?? scaled(this.#noise, deviation);
    this.#scaled.set(deviation ?? 0, values);
    const last = end ?? numValuesOf(shape);
    for (let done = begin; done < last; ) {
      // Each tensor begins elsewhere in the values.
      const place = (7919 * i + done) % period;
      const piece = values.subarray(place, place + Math.min(period - place, last - done));
      yield piece;
      done += piece.length;
    }
  }
}

/** `[period]` values near a normal distribution of deviation one: sums of four uniforms, by xorshift. */
function normals(): Float32Array {
  let state = 2463534242;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  // Such a sum has the variance 1/3.
  return Float32Array.from({ length: period }, () => (next() + next() + next() + next() - 2) * 3 ** 0.5);
}

/** Values times a deviation as bf16, rounded towards zero; ones for null. */
function scaled(values: Float32Array, deviation: number | null): Uint16Array {
  const floats = values.map((value) => (deviation === null ? 1 : value * deviation));
  // The upper half of a float is its bf16.
  return Uint16Array.from(new Uint32Array(floats.buffer), (word) => word >>> 16);
}
